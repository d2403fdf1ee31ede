//! What an administrator says about the plugin, as keys of its entry in the CNI configuration.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::{RUN_FOLDER, SOCKET};
use crate::state::DEFAULT_PATH;

/// The plugin's `type`, which is the name of its program.
pub const TYPE: &str = "podfence-cni";

/// The keys of the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// The agent's socket. The records of sandboxes are beside it.
    pub socket: PathBuf,
    /// What becomes of a pod that the agent does not enforce in time.
    pub on_unavailable: OnUnavailable,
    /// Where the agent keeps the state that is restored when the node boots. Where there is none, none is.
    pub state: PathBuf,
    /// How long an ADD waits for the agent.
    #[serde(rename = "timeoutSeconds")]
    pub timeout: Timeout,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            socket: Path::new(RUN_FOLDER).join(SOCKET),
            on_unavailable: OnUnavailable::default(),
            state: DEFAULT_PATH.into(),
            timeout: Timeout::default(),
        }
    }
}

impl Settings {
    /// The name of each key.
    pub const KEYS: [&str; 4] = ["socket", "onUnavailable", "state", "timeoutSeconds"];
}

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// What becomes of a pod when the agent is away or late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnavailable {
    /// It does not start, and the runtime tries again later.
    #[default]
    Wait,
    /// It starts, and its addresses are closed until the agent enforces its policies.
    Strict,
    /// It starts, and is not enforced until the agent knows it.
    Open,
}

impl FromStr for OnUnavailable {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "wait" => Ok(Self::Wait),
            "strict" => Ok(Self::Strict),
            "open" => Ok(Self::Open),
            _ => Err(Invalid(format!("`{text}` is not one of wait, strict and open"))),
        }
    }
}

/// A time from one second to one minute. More would hold up the runtime's other pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Timeout(u64);

impl Timeout {
    /// How long that is.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl Default for Timeout {
    fn default() -> Self {
        Self(10)
    }
}

impl TryFrom<u64> for Timeout {
    type Error = Invalid;

    fn try_from(seconds: u64) -> Result<Self, Self::Error> {
        if (1..=60).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(Invalid(format!("a timeout of {seconds} seconds is not between 1 and 60")))
        }
    }
}

impl From<Timeout> for u64 {
    fn from(timeout: Timeout) -> Self {
        timeout.0
    }
}

impl FromStr for Timeout {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds =
            text.parse::<u64>().map_err(|_| Invalid(format!("`{text}` is not a number of seconds")))?;
        seconds.try_into()
    }
}
