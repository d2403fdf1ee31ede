//! The plugin in a node's CNI configuration.
//!
//! Runtimes take the first file of a folder that ends in `.conflist`, `.conf` or `.json`. The plugin becomes the last
//! entry of that list. The file of a single plugin stays as it is; a list with its text and the plugin is put beside it,
//! under a name that comes first.

mod configuration;
mod files;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use configuration::Problem;

use crate::settings::{Settings, TYPE};
use configuration::Configuration;

/// Where container runtimes look for configurations, if nothing else is said.
pub const CONFIGURATIONS: &str = "/etc/cni/net.d";

/// Where they look for programs.
pub const PROGRAMS: &str = "/opt/cni/bin";

/// What the names of files end in that runtimes read.
const EXTENSIONS: [&str; 3] = [LIST, "conf", "json"];
const LIST: &str = "conflist";

/// What the name of a list ends in that is made of a single plugin. `10-bridge-podfence.conflist` comes before
/// `10-bridge.conf`.
const MADE: &str = "-podfence.conflist";

/// How often a file is tried that others write at the same time.
const TRIES: usize = 10;

/// Puts the plugin into the configuration, and takes it out again.
#[derive(Debug, Clone)]
pub struct Installer {
    /// The folder with the runtime's configurations.
    pub configurations: PathBuf,
    /// The folder with its programs.
    pub programs: PathBuf,
    /// The plugin's program, which is copied there.
    pub program: PathBuf,
    /// What its entry says.
    pub settings: Settings,
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The configuration that the runtime takes; `None` while there is none.
    pub configuration: Option<PathBuf>,
    /// What was written or deleted.
    pub changed: Vec<PathBuf>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.configuration {
            Some(path) => write!(f, "the container runtime takes the CNI configuration {}", path.display())?,
            None => write!(f, "there is no CNI configuration yet")?,
        }
        for (index, path) in self.changed.iter().enumerate() {
            write!(f, "{} {}", if index == 0 { "; changed:" } else { "," }, path.display())?;
        }
        Ok(())
    }
}

/// Why the plugin cannot be installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder is not there.
    #[error("{} does not exist: name the folder in which the container runtime looks for CNI {what}", path.display())]
    NoFolder {
        /// What is looked for in it.
        what: &'static str,
        /// The folder.
        path: PathBuf,
    },
    /// Nothing can be written there.
    #[error("{} is on a read-only file system: the plugin has to be installed by what builds the node", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What cannot be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The plugin cannot be in the configuration that the runtime takes.
    #[error("the CNI configuration {} cannot be used", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        problem: Problem,
    },
    /// Somebody else writes the file over and over.
    #[error("{} changes all the time", path.display())]
    Contended {
        /// The file.
        path: PathBuf,
    },
}

impl Installer {
    /// Puts the program and its entry where they belong, and back where others have taken them away. To be called again
    /// when something changes in one of the [`folders`](Self::folders).
    ///
    /// # Errors
    ///
    /// If the plugin cannot be installed, or the runtime cannot use its configuration.
    pub fn install(&self) -> Result<Outcome, Error> {
        let mut changed = Vec::new();
        // A runtime may run the program as soon as it is in the configuration.
        self.copy_program(&mut changed)?;
        let mut files = files_in(&self.configurations)?;
        let made = files.extract_if(.., |path| is_made(path)).collect::<Vec<_>>();
        let configuration = match files.first() {
            None => None,
            Some(list) if has_extension(list, LIST) => {
                let with = |text: &str| Configuration::read(text)?.with_plugin(&self.settings).map(Some);
                edit(list, with, &mut changed)?;
                Some(list.clone())
            }
            Some(single) => Some(self.make_list(single, &mut changed)?),
        };
        for stale in made.iter().filter(|made| configuration.as_ref() != Some(made)) {
            delete(stale, &mut changed)?;
        }
        Ok(Outcome { configuration, changed })
    }

    /// The folders in which others can undo what the installation does.
    pub fn folders(&self) -> [&Path; 2] {
        [&self.configurations, &self.programs]
    }

    fn copy_program(&self, changed: &mut Vec<PathBuf>) -> Result<(), Error> {
        if !self.programs.is_dir() {
            return Err(Error::NoFolder { what: "programs", path: self.programs.clone() });
        }
        let program = fs::read(&self.program).map_err(error("read", &self.program))?;
        let path = self.programs.join(TYPE);
        if fs::read(&path).is_ok_and(|installed| installed == program) {
            return Ok(());
        }
        files::write(&path, &program, 0o755).map_err(error("write", &path))?;
        changed.push(path);
        Ok(())
    }

    /// Makes a list of the file of a single plugin.
    fn make_list(&self, single: &Path, changed: &mut Vec<PathBuf>) -> Result<PathBuf, Error> {
        let text = read(single)?;
        let list = Configuration::read(&text).and_then(|single| single.as_list(&self.settings));
        let list = list.map_err(|problem| Error::Configuration { path: single.to_owned(), problem })?;
        let stem = single.file_stem().unwrap_or_default();
        let path = single.with_file_name(format!("{}{MADE}", stem.display()));
        if fs::read(&path).is_ok_and(|made| made == list.as_bytes()) {
            return Ok(path);
        }
        let write = || files::write(&path, list.as_bytes(), fs::metadata(single)?.mode());
        write().map_err(error("write", &path))?;
        changed.push(path.clone());
        Ok(path)
    }
}

/// Takes the plugin out of all configurations. The program stays: runtimes run it to delete pods that were started
/// with it.
///
/// # Errors
///
/// If a configuration cannot be read or written. The others are done all the same.
pub fn remove(configurations: &Path) -> Result<Outcome, Error> {
    let mut changed = Vec::new();
    let (made, files): (Vec<_>, Vec<_>) =
        files_in(configurations)?.into_iter().partition(|path| is_made(path));
    let mut result = Ok(());
    for path in &made {
        result = result.and(delete(path, &mut changed));
    }
    for path in files.iter().filter(|path| has_extension(path, LIST) && mentions_plugin(path)) {
        let without = |text: &str| Configuration::read(text)?.without_plugin();
        result = result.and(edit(path, without, &mut changed));
    }
    result.map(|()| Outcome { configuration: files.into_iter().next(), changed })
}

/// The files that the runtime reads, the first one first.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoFolder { what: "configurations", path: folder.to_owned() });
        }
        entries => entries.map_err(error("list", folder))?,
    };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let is_read =
        |path: &PathBuf| EXTENSIONS.iter().any(|extension| has_extension(path, extension)) && !path.is_dir();
    let mut files: Vec<_> = paths.filter(is_read).collect();
    files.sort_unstable();
    Ok(files)
}

/// Changes a list, if the change leads to another text. A list that others write at the same time is read again.
fn edit(
    path: &Path,
    change: impl Fn(&str) -> Result<Option<String>, Problem>,
    changed: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    for _ in 0..TRIES {
        let text = read(path)?;
        let new = change(&text).map_err(|problem| Error::Configuration { path: path.to_owned(), problem })?;
        let Some(new) = new.filter(|new| *new != text) else { return Ok(()) };
        if files::replace(path, text.as_bytes(), new.as_bytes()).map_err(error("write", path))? {
            changed.push(path.to_owned());
            return Ok(());
        }
    }
    Err(Error::Contended { path: path.to_owned() })
}

fn delete(path: &Path, changed: &mut Vec<PathBuf>) -> Result<(), Error> {
    files::delete(path).map_err(error("delete", path))?;
    changed.push(path.to_owned());
    Ok(())
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(error("read", path))
}

/// Whether a file is a list that was made of a single plugin, and that nobody else has changed.
fn is_made(path: &Path) -> bool {
    let has_name = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(MADE));
    has_name && read(path).is_ok_and(|text| Configuration::read(&text).is_ok_and(|list| list.is_made()))
}

fn mentions_plugin(path: &Path) -> bool {
    read(path).is_ok_and(|text| text.contains(TYPE))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|of_path| of_path == extension)
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly { path },
        _ => Error::File { action, path, source },
    }
}
