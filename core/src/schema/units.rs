//! How settings with a unit are described: sizes in bytes, and spans of time.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Describes a size as `bytesize` reads it: a text such as `"64KiB"`, or a number of bytes.
///
/// ```
/// # use schemars::JsonSchema;
/// #[derive(JsonSchema)]
/// struct Settings {
///     #[schemars(with = "plugd_core::schema::ByteSize")]
///     size_max: bytesize::ByteSize,
/// }
/// ```
#[derive(Debug)]
pub enum ByteSize {}

/// Describes a span of time as `humantime` reads it: a text such as `"1m 30s"`.
#[derive(Debug)]
pub enum TimeSpan {}

/// The values of `format` with which schemas name these units, and what people are told of them.
const FORMATS: [(&str, &str); 2] = [
    ("byte-size", "a size such as \"64KiB\", or a number of bytes"),
    ("time-span", "a span of time such as \"1m 30s\""),
];

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 0, "format": "byte-size" })
    }
}

impl JsonSchema for TimeSpan {
    fn schema_name() -> Cow<'static, str> {
        "TimeSpan".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "time-span" })
    }
}

/// What a schema of this format allows, in words.
pub(super) fn words_of_format(format: &str) -> Option<&'static str> {
    FORMATS.iter().find(|(known, _)| *known == format).map(|(_, words)| *words)
}
