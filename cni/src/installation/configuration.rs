//! The plugin's entry in the text of a network configuration.
//!
//! Everything but the entry stays as it is written, so that taking the entry out again leaves the text that was there
//! before, with whatever others have changed since.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::settings::{Settings, TYPE};
use crate::version::{NEWEST, SUPPORTED};

/// Why the plugin cannot be put into a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is no JSON, or not of the shape that CNI describes.
    #[error("it is no CNI configuration")]
    Unreadable(#[from] serde_json::Error),
    /// It does not name its network.
    #[error("it has no `name`")]
    NoName,
    /// It is a list without plugins.
    #[error("its list `plugins` is missing or empty")]
    NoPlugins,
    /// It is a list in a file for a single plugin.
    #[error("it has a list `plugins`, which runtimes read only from files that end in .conflist")]
    ListInSingle,
    /// Its version has no chains of plugins, or is newer than the plugin.
    #[error("its `cniVersion` is {version}: podfence-cni can be chained with {} to {NEWEST}", SUPPORTED[0])]
    Version {
        /// The version.
        version: String,
    },
}

/// A configuration of a single plugin or of a list of them.
#[derive(Debug)]
pub(super) struct Configuration<'a> {
    text: &'a str,
    name: Option<String>,
    version: Option<String>,
    versions: Vec<String>,
    /// Those of a list, and where in the text they are.
    plugins: Option<Vec<(Plugin, Range<usize>)>>,
}

#[derive(Deserialize)]
struct Keys<'a> {
    name: Option<String>,
    #[serde(rename = "cniVersion")]
    version: Option<String>,
    #[serde(rename = "cniVersions", default)]
    versions: Vec<String>,
    #[serde(borrow)]
    plugins: Option<Vec<&'a RawValue>>,
}

/// A plugin in a list.
#[derive(Debug, Deserialize, Serialize)]
struct Plugin {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    keys: Map<String, Value>,
}

impl<'a> Configuration<'a> {
    /// Reads one.
    pub(super) fn read(text: &'a str) -> Result<Self, Problem> {
        let Keys { name, version, versions, plugins } = serde_json::from_str(text)?;
        let place = |plugin: &RawValue| {
            let start = plugin.get().as_ptr().addr() - text.as_ptr().addr();
            start..start + plugin.get().len()
        };
        let read = |plugin: &RawValue| Ok((serde_json::from_str(plugin.get())?, place(plugin)));
        let plugins: Result<Option<Vec<_>>, serde_json::Error> =
            plugins.map(|plugins| plugins.into_iter().map(read).collect()).transpose();
        Ok(Self { text, name, version, versions, plugins: plugins? })
    }

    /// The text of the list with the plugin in it: where it is already, or at the end.
    pub(super) fn with_plugin(&self, settings: &Settings) -> Result<String, Problem> {
        self.check_version()?;
        let plugins = self.plugins();
        let Some((_, last)) = plugins.last() else { return Err(Problem::NoPlugins) };
        let Some((own, place)) = plugins.iter().find(|(plugin, _)| plugin.is_own()) else {
            let entry = Plugin::own(settings, Map::new())?.to_text()?;
            return Ok(self.replaced(last.end..last.end, &format!("{}{entry}", self.separator())));
        };
        if own.settings().is_some_and(|written| written == *settings) {
            return Ok(self.text.to_owned());
        }
        let entry = Plugin::own(settings, own.keys.clone())?.to_text()?;
        Ok(self.replaced(place.clone(), &entry))
    }

    /// The text of the list without the plugin; `None` if it is not in it.
    pub(super) fn without_plugin(&self) -> Result<Option<String>, Problem> {
        let plugins = self.plugins();
        let Some(own) = plugins.iter().position(|(plugin, _)| plugin.is_own()) else { return Ok(None) };
        let place = |index: usize| plugins.get(index).map(|(_, place)| place.clone());
        let before = own.checked_sub(1).and_then(place);
        let cut = match (before, place(own), place(own + 1)) {
            (Some(before), Some(own), _) => before.end..own.end,
            (None, Some(own), Some(after)) => own.start..after.start,
            (_, own, _) => own.unwrap_or_default(),
        };
        let text = self.replaced(cut, "");
        // By hand, somebody may have put it in twice.
        Ok(Some(Configuration::read(&text)?.without_plugin()?.unwrap_or(text)))
    }

    /// The text of a list that has the single plugin, as it is written, and this one behind it.
    pub(super) fn as_list(&self, settings: &Settings) -> Result<String, Problem> {
        self.in_list_with(&Plugin::own(settings, Map::new())?.to_text()?)
    }

    /// Whether [`as_list`](Self::as_list) has made it, with whatever settings, and nobody has changed it since.
    pub(super) fn is_made(&self) -> bool {
        let [(_, single), (own, entry)] = self.plugins() else { return false };
        let text = |place: &Range<usize>| self.text.get(place.clone()).unwrap_or_default();
        let made = Configuration::read(text(single)).and_then(|single| single.in_list_with(text(entry)));
        own.is_own() && made.is_ok_and(|made| made == self.text)
    }

    fn in_list_with(&self, entry: &str) -> Result<String, Problem> {
        if self.plugins.is_some() {
            return Err(Problem::ListInSingle);
        }
        self.check_version()?;
        let name = serde_json::to_string(self.name.as_ref().ok_or(Problem::NoName)?)?;
        let (version, single) = (serde_json::to_string(&self.version)?, self.text.trim());
        Ok(format!(
            "{{\n  \"cniVersion\": {version},\n  \"name\": {name},\n  \"plugins\": [\n{single},\n{entry}\n  ]\n}}\n"
        ))
    }

    fn plugins(&self) -> &[(Plugin, Range<usize>)] {
        self.plugins.as_deref().unwrap_or_default()
    }

    /// A runtime takes the newest version that it knows, an old one `cniVersion`.
    fn check_version(&self) -> Result<(), Problem> {
        let newest = self.versions.iter().max_by_key(|version| numbers(version));
        let named = self.version.iter().chain(newest.filter(|newest| self.version.as_ref() < Some(newest)));
        let unsupported = named.clone().find(|version| !SUPPORTED.contains(&version.as_str()));
        match (unsupported, named.count()) {
            (Some(version), _) => Err(Problem::Version { version: format!("`{version}`") }),
            (None, 0) => Err(Problem::Version { version: "missing, which means 0.1.0".into() }),
            (None, _) => Ok(()),
        }
    }

    /// What stands between two plugins of the list.
    fn separator(&self) -> String {
        match self.plugins() {
            [.., (_, before), (_, last)] => self.text.get(before.end..last.start).unwrap_or(",").to_owned(),
            [(_, only)] => {
                let before = self.text.get(..only.start).unwrap_or_default();
                format!(",{}", before.strip_prefix(before.trim_end()).unwrap_or_default())
            }
            [] => String::new(),
        }
    }

    fn replaced(&self, place: Range<usize>, text: &str) -> String {
        let mut replaced = self.text.to_owned();
        replaced.replace_range(place, text);
        replaced
    }
}

impl Plugin {
    /// The entry with these settings, beside other keys.
    fn own(settings: &Settings, mut keys: Map<String, Value>) -> Result<Self, Problem> {
        if let Value::Object(settings) = serde_json::to_value(settings)? {
            keys.extend(settings);
        }
        Ok(Self { kind: TYPE.into(), keys })
    }

    fn is_own(&self) -> bool {
        self.kind == TYPE
    }

    fn settings(&self) -> Option<Settings> {
        serde_json::from_value(Value::Object(self.keys.clone())).ok()
    }

    fn to_text(&self) -> Result<String, Problem> {
        Ok(serde_json::to_string(self)?)
    }
}

/// The numbers of a version such as `1.1.0`.
fn numbers(version: &str) -> Vec<Option<u64>> {
    version.split('.').map(|number| number.parse().ok()).collect()
}
