//! Upper-cases text as it streams.
