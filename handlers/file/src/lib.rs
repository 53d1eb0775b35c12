//! Serves files below one directory.
