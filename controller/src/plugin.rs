//! The CNI plugin in the node's configuration: installed, kept there, and taken out when podfence is uninstalled.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use podfence_cni::installation::{self, Error, Installer, Outcome};
use tracing::{info, warn};

use crate::error::chain;
use crate::health::{Condition, Health};
use crate::metrics::Metrics;

/// How often the configuration is looked at without a hint.
const LOOK: Duration = Duration::from_secs(10);

/// The plugin as it is to be installed, until it is taken out.
#[derive(Clone)]
pub(crate) struct Plugin(Arc<Mutex<Option<Installer>>>);

impl Plugin {
    pub(crate) fn new(installer: Installer) -> Self {
        Self(Arc::new(Mutex::new(Some(installer))))
    }

    /// Takes it out of the configuration. Its keeper does not put it back.
    pub(crate) fn withdraw(&self) {
        if let Some(installer) = self.lock().take()
            && let Err(error) = remove(&installer.configurations)
        {
            warn!(error = chain(&error), "the CNI plugin stays in the configuration");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Installer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the plugin in the node's CNI configuration.
pub(crate) struct Keeper {
    plugin: Plugin,
    health: Health,
    metrics: Arc<Metrics>,
    /// What was said last.
    said: Option<String>,
}

impl Keeper {
    pub(crate) fn new(plugin: Plugin, health: Health, metrics: Arc<Metrics>) -> Self {
        Self { plugin, health, metrics, said: None }
    }

    /// Installs the plugin whenever something changes in its folders, until it is withdrawn.
    pub(crate) fn run(mut self) {
        let (hint, hints) = mpsc::channel();
        // What is watched cannot be read, or there are no watches left: then it is looked at now and then.
        let on_event = move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|event| is_only_read(event.kind)) {
                // Nobody listens any more when the agent ends.
                let _ = hint.send(());
            }
        };
        let mut watcher = notify::recommended_watcher(on_event).ok();
        loop {
            let wanted = self.plugin.lock();
            let Some(installer) = &*wanted else { return };
            for folder in installer.folders() {
                // A folder that is made anew is another one.
                if let Some(watcher) = &mut watcher {
                    let _ = watcher.unwatch(folder);
                    let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
                }
            }
            let result = installer.install();
            drop(wanted);
            self.report(result);
            match hints.recv_timeout(LOOK) {
                Ok(()) => hints.try_iter().for_each(drop),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Says how things stand, once.
    fn report(&mut self, result: Result<Outcome, Error>) {
        let (installed, said) = match result {
            Ok(outcome) if outcome.configuration.is_some() => {
                self.health.good(Condition::Plugin);
                (true, outcome.to_string())
            }
            Ok(outcome) => (false, outcome.to_string()),
            Err(error) => (false, chain(&error)),
        };
        self.metrics.plugin_missing(!installed);
        if !installed {
            self.health.bad(
                Condition::Plugin,
                format!("the CNI plugin is not installed, and pods start before they are enforced: {said}"),
            );
        }
        if self.said.as_ref() != Some(&said) {
            if installed {
                info!("the CNI plugin is installed: {said}");
            } else {
                warn!("the CNI plugin is not installed: {said}");
            }
            self.said = Some(said);
        }
    }
}

/// Whether somebody has only looked, as the keeper itself does.
fn is_only_read(event: EventKind) -> bool {
    matches!(event, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Takes the plugin out of the node's CNI configuration. Its program stays for the pods that were started with it.
///
/// # Errors
///
/// If a configuration cannot be read or written.
pub fn remove(configurations: &Path) -> Result<(), Error> {
    let outcome = installation::remove(configurations)?;
    info!("the CNI plugin is not in the configuration any more: {outcome}");
    Ok(())
}

/// The plugin's program, which is beside that of the agent.
///
/// # Errors
///
/// If the system does not say where the agent's program is.
pub fn program() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().unwrap_or(Path::new("/")).join(podfence_cni::settings::TYPE))
}
