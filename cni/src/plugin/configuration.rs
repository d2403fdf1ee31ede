//! The configuration that the runtime writes on standard input.

use std::collections::BTreeMap;
use std::path::PathBuf;

use podfence_cni::protocol::Attachment;
use podfence_cni::settings::Settings;
use podfence_cni::version;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::Error;

/// The keys that the specification gives to the runtime and to all plugins, beside those that begin with `cni.dev/`.
const COMMON_KEYS: [&str; 10] = [
    "args",
    "capabilities",
    "cniVersion",
    "dns",
    "ipMasq",
    "ipam",
    "name",
    "prevResult",
    "runtimeConfig",
    "type",
];

const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";

/// What is in it.
#[derive(Debug)]
pub(crate) struct Configuration<'a> {
    pub(crate) version: String,
    pub(crate) settings: Settings,
    /// `prevResult`, the result of the plugins before this one.
    previous: Option<&'a RawValue>,
    /// For GC, what is in use.
    pub(crate) valid: Option<Vec<Attachment>>,
}

impl<'a> Configuration<'a> {
    /// Reads it for a command of a version of the specification and all that follow.
    pub(crate) fn read(text: &'a str, command: &'static str, since: &'static str) -> Result<Self, Error> {
        let version = version(text)?;
        if !version::SUPPORTED.contains(&version.as_str()) {
            return Err(Error::Version { version });
        }
        if !version::is_at_least(&version, since) {
            return Err(Error::TooOld { command, version });
        }
        let values = values(text)?;
        if let Some((key, value)) = values.iter().find(|(key, _)| !is_known(key)) {
            return Err(Error::UnknownKey { key: key.clone(), value: value.get().to_owned() });
        }
        let default = Settings::default();
        let settings = Settings {
            socket: setting(&values, "socket")?.unwrap_or(default.socket),
            on_unavailable: setting(&values, "onUnavailable")?.unwrap_or(default.on_unavailable),
            state: setting(&values, "state")?.unwrap_or(default.state),
            timeout: setting(&values, "timeoutSeconds")?.unwrap_or(default.timeout),
        };
        // Without any, a runtime may write `null`.
        let valid =
            value::<Option<Vec<Attachment>>>(&values, VALID_ATTACHMENTS)?.map(Option::unwrap_or_default);
        let previous = values.get("prevResult").copied().filter(|previous| previous.get() != "null");
        Ok(Self { version, settings, previous, valid })
    }

    /// The result of the plugins before this one.
    pub(crate) fn previous(&self) -> Result<&'a RawValue, Error> {
        self.previous.ok_or_else(|| {
            let problem =
                "prevResult is missing: podfence-cni runs behind the plugin that makes the interface";
            Error::Configuration(problem.into())
        })
    }
}

/// The version that a configuration names.
pub(crate) fn version(text: &str) -> Result<String, Error> {
    Ok(value(&values(text)?, "cniVersion")?.unwrap_or_default())
}

/// The agent's socket, whatever else is in the configuration.
pub(crate) fn socket(text: &str) -> PathBuf {
    let socket = values(text).and_then(|values| value(&values, "socket"));
    socket.ok().flatten().unwrap_or_else(|| Settings::default().socket)
}

fn values(text: &str) -> Result<BTreeMap<String, &RawValue>, Error> {
    serde_json::from_str(text).map_err(Error::Decode)
}

fn value<T: DeserializeOwned>(values: &BTreeMap<String, &RawValue>, key: &str) -> Result<Option<T>, Error> {
    values.get(key).map(|value| serde_json::from_str(value.get())).transpose().map_err(Error::Decode)
}

/// A key of the plugin's own, and which one it is if it is wrong.
fn setting<T: DeserializeOwned>(values: &BTreeMap<String, &RawValue>, key: &str) -> Result<Option<T>, Error> {
    let value: Option<Value> = value(values, key)?;
    let problem = |error| Error::Configuration(format!("{key}: {error}"));
    value.map(serde_json::from_value).transpose().map_err(problem)
}

fn is_known(key: &str) -> bool {
    COMMON_KEYS.contains(&key) || Settings::KEYS.contains(&key) || key.starts_with("cni.dev/")
}
