//! Why a command fails, with the codes of the CNI specification.

use std::error::Error as StdError;
use std::io;

use podfence_cni::version::{self, NEWEST};
use serde_json::json;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("CNI version `{version}` is not one of {}", version::SUPPORTED.join(", "))]
    Version { version: String },
    #[error("{command} is no command of CNI version {version}")]
    TooOld { command: &'static str, version: String },
    #[error("unknown key `{key}` with the value {value}")]
    UnknownKey { key: String, value: String },
    #[error("{variable} {problem}")]
    Environment { variable: &'static str, problem: String },
    #[error("cannot read the configuration")]
    Input(#[source] io::Error),
    #[error("the records of sandboxes cannot be kept")]
    Records(#[from] podfence_cni::records::Error),
    #[error("the configuration is not what CNI describes")]
    Decode(#[source] serde_json::Error),
    #[error("{0}")]
    Configuration(String),
    #[error("the addresses of the pod cannot be closed")]
    Close(#[from] podfence_cni::netlink::Error),
    #[error("the policies of the pod are not enforced yet")]
    TryAgain(#[source] Late),
    #[error("no pod can start: their policies would not be enforced")]
    Unavailable(#[source] Late),
    #[error("the policies of the pod are not enforced: {0}")]
    NotEnforced(String),
}

/// Why the agent has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Late {
    #[error("the agent refuses: {0}")]
    Refused(String),
    #[error(transparent)]
    Silent(#[from] podfence_cni::protocol::Error),
}

impl Error {
    fn code(&self) -> u32 {
        match self {
            Self::Version { .. } | Self::TooOld { .. } => 1,
            Self::UnknownKey { .. } => 2,
            Self::Environment { .. } => 4,
            Self::Input(_) | Self::Records(_) => 5,
            Self::Decode(_) => 6,
            Self::Configuration(_) => 7,
            Self::TryAgain(_) | Self::Close(_) => 11,
            Self::Unavailable(_) => 50,
            // Those from 100 on are free for plugins.
            Self::NotEnforced(_) => 100,
        }
    }
}

/// An error, and the version in which it is said.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) version: Option<String>,
}

impl Failure {
    /// The error as the specification wants it on standard output.
    pub(crate) fn to_json(&self) -> String {
        let details = self.error.source().map(chain).unwrap_or_default();
        let version = self.version.as_deref().filter(|version| version::SUPPORTED.contains(version));
        let object = json!({
            "cniVersion": version.unwrap_or(NEWEST),
            "code": self.error.code(),
            "msg": self.error.to_string(),
            "details": details,
        });
        format!("{object}\n")
    }
}

/// An error and its causes.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
