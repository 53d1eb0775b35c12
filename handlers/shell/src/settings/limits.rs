//! Collects settings that are out of bounds.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use encoding_rs::Encoding;
use humantime_serde::re::humantime::format_duration;
use plugd_core::SettingError;

/// Everything that was found to be wrong, each with its place.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<SettingError>);

impl Checks {
    /// Complains about the setting at `path`.
    pub(crate) fn refuse(&mut self, path: &[&str], message: impl Into<String>) {
        // Names that operators choose may hold dots.
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        self.0.push(SettingError { path, message: message.into() });
    }

    pub(crate) fn within<T: PartialOrd + Display>(
        &mut self,
        path: &[&str],
        found: Option<T>,
        allowed: RangeInclusive<T>,
    ) {
        if let Some(found) = found.filter(|found| !allowed.contains(found)) {
            self.refuse(path, format!("{found} is out of range; allowed: {} to {}", allowed.start(), allowed.end()));
        }
    }

    pub(crate) fn size(&mut self, path: &[&str], found: Option<ByteSize>, allowed: RangeInclusive<u64>) {
        self.within(path, found, ByteSize(*allowed.start())..=ByteSize(*allowed.end()));
    }

    pub(crate) fn time(&mut self, path: &[&str], found: Option<Duration>, allowed: RangeInclusive<Duration>) {
        if let Some(found) = found.filter(|found| !allowed.contains(found)) {
            let [found, least, most] = [found, *allowed.start(), *allowed.end()].map(format_duration);
            self.refuse(path, format!("{found} is out of range; allowed: {least} to {most}"));
        }
    }

    pub(crate) fn encoding(&mut self, path: &[&str], label: Option<&str>) {
        if let Some(label) = label
            && Encoding::for_label(label.as_bytes()).is_none()
        {
            let message = format!("unknown encoding {label:?}; allowed: a label of the WHATWG, such as \"gbk\"");
            self.refuse(path, message);
        }
    }

    pub(crate) fn done(self) -> Result<(), Vec<SettingError>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}
