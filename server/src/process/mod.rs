//! What the process gives up once it has what it needs: its user, the files of others. And the descriptors it asks for.

mod account;
mod confinement;
mod descriptors;

pub(crate) use self::account::Account;
pub(crate) use self::confinement::{Confinement, confine};
pub(crate) use self::descriptors::raise_limit;
