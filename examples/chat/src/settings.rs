//! What an operator may set.

use std::ops::RangeInclusive;

use plugd_core::{Context, SettingError, Settings, StartError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Chat;
use crate::room::Rooms;

/// The settings of the handler `chat`. A room takes at most `lines_kept` times `line_len_max` bytes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChatSettings {
    /// How many rooms there may be at once.
    #[schemars(range(min = 1, max = 10_000))]
    pub rooms_max: usize,
    /// The longest line, in bytes.
    #[schemars(range(min = 1, max = 65_536))]
    pub line_len_max: usize,
    /// How many lines a room keeps for a member that reads slowly; older ones are missed.
    #[schemars(range(min = 1, max = 4_096))]
    pub lines_kept: usize,
}

impl Default for ChatSettings {
    fn default() -> ChatSettings {
        ChatSettings { rooms_max: 64, line_len_max: 4096, lines_kept: 256 }
    }
}

impl Settings for ChatSettings {
    type Handler = Chat;

    fn check(&self) -> Result<(), Vec<SettingError>> {
        let bounds: [(&str, usize, RangeInclusive<usize>); 3] = [
            ("rooms_max", self.rooms_max, 1..=10_000),
            ("line_len_max", self.line_len_max, 1..=65_536),
            ("lines_kept", self.lines_kept, 1..=4_096),
        ];
        let bad = bounds.into_iter().filter(|(_, found, allowed)| !allowed.contains(found));
        let errors: Vec<SettingError> = bad
            .map(|(key, found, allowed)| {
                let text = format!("{found} is out of range; allowed: {} to {}", allowed.start(), allowed.end());
                SettingError::new(key, text)
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn build(self, _context: &Context) -> Result<Chat, StartError> {
        Ok(Chat { rooms: Rooms::new(self.rooms_max, self.lines_kept), line_len_max: self.line_len_max })
    }
}
