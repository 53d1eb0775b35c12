//! What a JSON Schema says of a value: which keys it knows, and which values it allows.
//!
//! The schemas are those that schemars derives, with their parts inline. What they do not say in these words is left to the
//! types that read the value.

mod keys;
mod units;
mod values;

pub(crate) use self::keys::misplaced_values;
pub use self::keys::{UnknownKey, unknown_keys};
pub use self::units::{ByteSize, TimeSpan};
pub use self::values::allowed_values;
pub(crate) use self::values::wrong_values;
