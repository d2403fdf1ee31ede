//! The flags of `run` that are about the CNI plugin.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use controller::agent::Installation;
use controller::plugin::program;
use podfence_cni::installation::{CONFIGURATIONS, Installer, PROGRAMS};
use podfence_cni::settings::{OnUnavailable, Settings, Timeout};
use podfence_cni::state::DEFAULT_PATH;
use policy_compiler::model::ObjectName;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Listen to the CNI plugin podfence-cni at this socket: it waits until a pod's policies are in the kernel before the
    /// pod starts. The records of sandboxes are kept beside the socket, in a folder that has to be empty when the node
    /// boots, as those in /run are.
    #[arg(long, value_name = "PATH", env = "PODFENCE_CNI_SOCKET")]
    cni_socket: Option<PathBuf>,
    /// Put podfence-cni behind the plugins of the node's CNI configuration, and keep it there. Its program is the one
    /// beside the agent's.
    #[arg(long, env = "PODFENCE_INSTALL_CNI", requires = "cni_socket")]
    install_cni: bool,
    /// The folder of the node's CNI configurations.
    #[arg(long, value_name = "DIR", env = "PODFENCE_CNI_CONFIGURATIONS", default_value = CONFIGURATIONS)]
    cni_configurations: PathBuf,
    /// The folder of its CNI programs.
    #[arg(long, value_name = "DIR", env = "PODFENCE_CNI_PROGRAMS", default_value = PROGRAMS)]
    cni_programs: PathBuf,
    /// What becomes of a pod when the agent is away or late: with "wait" the runtime tries again, with "strict" it starts
    /// and its addresses are closed until it is known, with "open" it starts and is not enforced until then.
    #[arg(long, value_name = "wait|strict|open", env = "PODFENCE_CNI_UNAVAILABLE", default_value = "wait")]
    cni_unavailable: OnUnavailable,
    /// How long the plugin waits for the agent, from 1 to 60 seconds.
    #[arg(long, value_name = "SECONDS", env = "PODFENCE_CNI_TIMEOUT", default_value = "10")]
    cni_timeout: Timeout,
    /// The DaemonSet whose pods the agents are, as NAMESPACE/NAME: an agent that ends because that is deleted takes the
    /// plugin out of the configuration.
    #[arg(long, value_name = "NAMESPACE/NAME", env = "PODFENCE_DAEMON_SET", value_parser = object_name)]
    daemon_set: Option<ObjectName>,
}

impl Arguments {
    /// Where the plugin is heard, if it is.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        self.cni_socket.clone()
    }

    /// How it is installed, if it is.
    pub(crate) fn installation(self, state: Option<&Path>) -> Result<Option<Installation>> {
        let Some(socket) = self.cni_socket.filter(|_| self.install_cni) else { return Ok(None) };
        let program = program().context("cannot find the program of the CNI plugin")?;
        let state = state.map_or_else(|| DEFAULT_PATH.into(), Path::to_owned);
        let settings =
            Settings { socket, on_unavailable: self.cni_unavailable, state, timeout: self.cni_timeout };
        let installer = Installer {
            configurations: self.cni_configurations,
            programs: self.cni_programs,
            program,
            settings,
        };
        Ok(Some(Installation { installer, daemon_set: self.daemon_set }))
    }
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err(format!("`{text}` is not of the form NAMESPACE/NAME")),
    }
}
