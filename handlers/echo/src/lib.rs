//! Streams back what comes, frame by frame.
