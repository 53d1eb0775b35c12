//! What an operator may set.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use plugd_core::{Context, Operation, SettingError, Settings, StartError, Status, Writes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::version::Version;
use crate::{Algorithm, File};

/// How the server treats symbolic links below the root. One that leads out is never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Symlinks {
    /// Links are followed as long as they stay below the root.
    #[default]
    Inside,
    /// A path that leads through a link is refused.
    Refuse,
}

/// What a stored file survives once the caller has been told that it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Durability {
    /// The end of the server, but not that of the machine.
    None,
    /// The disk has the file's content before its name shows it: after a power cut the old file is there or the new one.
    #[default]
    File,
    /// The disk has the name as well: after a power cut the new file is there.
    Full,
}

/// The settings of the handler `file`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The directory whose content is served, relative to the configuration file. It is made when it is missing.
    pub root: PathBuf,
    /// Whether callers may change anything.
    #[serde(default)]
    pub writable: bool,
    /// The digests that callers may ask for. A caller that asks for none in particular gets md5, or the first of these.
    #[serde(default = "all_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Whether symbolic links are followed: inside the root, or never.
    #[serde(default)]
    pub symlinks: Symlinks,
    /// What a stored file survives, unless the caller asks for something else: none, file or full.
    #[serde(default)]
    pub durability: Durability,
    /// The longest file that may be stored, such as "10GiB"; unlimited unless set.
    #[serde(default)]
    #[schemars(with = "Option<plugd_core::schema::ByteSize>")]
    pub size_max: Option<ByteSize>,
    /// How much all files together may hold, such as "1TiB"; unlimited unless set.
    #[serde(default)]
    #[schemars(with = "Option<plugd_core::schema::ByteSize>")]
    pub quota: Option<ByteSize>,
    /// How long the beginning of an upload that was cut is kept, to be carried on.
    #[serde(default = "a_day", with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    pub upload_expiry: Duration,
}

fn all_algorithms() -> Vec<Algorithm> {
    Algorithm::ALL.to_vec()
}

fn a_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

/// The longest that an upload is kept: past a year something is wrong with the setting.
const UPLOAD_EXPIRY_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Settings for FileSettings {
    type Handler = File;

    fn check(&self) -> Result<(), Vec<SettingError>> {
        let mut errors = Vec::new();
        let root = self.root.as_os_str().as_encoded_bytes();
        if root.is_empty() || root.contains(&0) {
            let message = format!("bad path {:?}; allowed: a directory, such as \"files\"", self.root);
            errors.push(SettingError::new("root", message));
        }
        if self.algorithms.is_empty() {
            let message = "no algorithm; allowed: one or more of \"md5\", \"blake3\", \"sha256\", \"none\"";
            errors.push(SettingError::new("algorithms", message));
        }
        if self.upload_expiry.is_zero() || self.upload_expiry > UPLOAD_EXPIRY_MAX {
            let found = humantime_serde::re::humantime::format_duration(self.upload_expiry);
            errors
                .push(SettingError::new("upload_expiry", format!("{found} is out of range; allowed: 1ns to 366days")));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn writes(&self, _operations: &[Operation]) -> Writes {
        Writes::Below(vec![self.root.clone()])
    }

    fn build(self, context: &Context) -> Result<File, StartError> {
        let path = context.base_dir.join(&self.root);
        File::open(&path, self)
            .map_err(|error| StartError::new(format!("cannot serve directory {path:?}")).with_source(error))
    }
}

impl FileSettings {
    /// The algorithm that a call uses.
    ///
    /// # Errors
    ///
    /// `invalid_argument` with reason `algorithm-not-allowed`, which names those that are.
    pub(crate) fn algorithm(&self, asked: Option<Algorithm>) -> Result<Algorithm, Status> {
        let Some(asked) = asked else {
            let default =
                if self.algorithms.contains(&Algorithm::Md5) { None } else { self.algorithms.first().copied() };
            return Ok(default.unwrap_or(Algorithm::Md5));
        };
        if self.algorithms.contains(&asked) {
            return Ok(asked);
        }
        let allowed: Vec<&str> = self.algorithms.iter().map(|algorithm| algorithm.name()).collect();
        let message = format!("algorithm {} is not allowed; allowed: {}", asked.name(), allowed.join(", "));
        Err(Status::invalid_argument("algorithm-not-allowed", message))
    }

    /// Reads a condition of a call: an etag or a digest of an allowed algorithm.
    pub(crate) fn version(&self, text: Option<String>) -> Result<Option<Version>, Status> {
        let version = text.as_deref().map(Version::parse).transpose()?;
        if let Some(Version::Digest(digest)) = &version {
            self.algorithm(Some(digest.algorithm()))?;
        }
        Ok(version)
    }
}
