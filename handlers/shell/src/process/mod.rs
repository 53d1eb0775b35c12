//! Commands as processes: started, followed, and ended with everything that they started.

mod facts;
mod family;
mod running;

pub(crate) use family::{MARKER, adopt_orphans};
pub(crate) use running::{Running, Wake};
