//! Runs commands and streams their output.
