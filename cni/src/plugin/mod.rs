//! The commands of the CNI specification.

mod agent;
mod configuration;
mod environment;
mod error;
mod previous;

use std::io::{Read, Write, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

use podfence_cni::closed;
use podfence_cni::protocol::{Attachment, Request, Sandbox};
use podfence_cni::records::{self, Records};
use podfence_cni::settings::{OnUnavailable, Settings};
use podfence_cni::state;
use podfence_cni::version::{self, NEWEST};
use serde_json::json;

use configuration::Configuration;
use environment::{Command, Target};
use error::{Error, Failure, Late, chain};
use previous::Previous;

/// How long anything but the start of a pod waits for the agent.
const SHORT: Duration = Duration::from_secs(2);

/// Does what the variables and the configuration ask for, and returns what is to be printed.
pub(crate) fn run(
    variable: impl Fn(&str) -> Option<String>,
    mut configuration: impl Read,
) -> Result<String, Failure> {
    let command = Command::read(variable).map_err(|error| Failure { error, version: None })?;
    let mut text = String::new();
    let read = configuration.read_to_string(&mut text).map_err(Error::Input);
    let result = execute(command, read.map(|_| text.as_str()));
    result.map_err(|error| Failure { error, version: configuration::version(&text).ok() })
}

fn execute(command: Command, text: Result<&str, Error>) -> Result<String, Error> {
    match command {
        Command::Add(target) => add(target, &Configuration::read(text?, "ADD", "0.3.0")?),
        // What is wrong with the configuration must not keep a pod from being deleted.
        Command::Del(attachment) => Ok(delete(&attachment, text.unwrap_or_default())),
        Command::Check(target) => check(target, &Configuration::read(text?, "CHECK", "0.4.0")?),
        Command::Gc => collect(&Configuration::read(text?, "GC", "1.1.0")?),
        Command::Status => status(&Configuration::read(text?, "STATUS", "1.1.0")?),
        Command::Version => Ok(versions(text.unwrap_or_default())),
    }
}

/// ADD: has the agent enforce a pod's policies.
fn add(target: Target, configuration: &Configuration) -> Result<String, Error> {
    let output = previous::printed(configuration.previous()?, &configuration.version);
    let Some(sandbox) = sandbox(target, configuration)? else {
        note("CNI_ARGS names no pod of Kubernetes: nothing is enforced");
        return Ok(output);
    };
    let settings = &configuration.settings;
    let request = Request::Add(sandbox.clone());
    let deadline = Instant::now() + settings.timeout.duration();
    let asked = match agent::ask(&settings.socket, &request, settings.timeout.duration()) {
        // While the node boots there may be no agent for a long time: it is a pod itself.
        Err(Late::Silent(_)) if is_as_saved(&sandbox, &settings.state) => {
            records(&settings.socket)?.put(&sandbox)?;
            Ok(())
        }
        Err(Late::Silent(_)) => {
            let left = deadline.saturating_duration_since(Instant::now());
            agent::wait_for(&settings.socket, &request, left)
        }
        answer => answer,
    };
    asked.or_else(|late| start_without(&sandbox, settings, late))?;
    Ok(output)
}

/// Does with a pod that the agent does not enforce in time what the administrator wants.
fn start_without(sandbox: &Sandbox, settings: &Settings, late: Late) -> Result<(), Error> {
    match settings.on_unavailable {
        OnUnavailable::Wait => return Err(Error::TryAgain(late)),
        OnUnavailable::Strict => {
            closed::close(&sandbox.addresses)?;
            note(&format!("{} starts closed: {}", sandbox.pod, chain(&late)));
        }
        OnUnavailable::Open => note(&format!("{} starts unenforced: {}", sandbox.pod, chain(&late))),
    }
    // The next agent learns from it whose the addresses are.
    records(&settings.socket)?.put(sandbox)?;
    // An agent that came or caught up meanwhile may have looked at what is closed before this was.
    let request = Request::Add(sandbox.clone());
    if settings.on_unavailable == OnUnavailable::Strict
        && agent::ask(&settings.socket, &request, SHORT).is_ok()
    {
        closed::open(&sandbox.addresses)?;
    }
    Ok(())
}

/// Whether the kernel enforces a pod as it did before the node booted, in the table that is restored if there is none.
fn is_as_saved(sandbox: &Sandbox, state: &Path) -> bool {
    if let Err(failure) = state::restore_if_missing(state, None, &[]) {
        note(&chain(&failure));
    }
    // Where the table is an agent's, that agent will be back.
    if !matches!(state::restored(), Ok(Some(_))) {
        return false;
    }
    let done = state::readdress(state, None, &sandbox.pod, &sandbox.addresses);
    done.inspect_err(|error| note(&chain(error))).is_ok()
}

/// DEL: has the agent forget an attachment, or deletes its record where there is no agent. It always succeeds.
fn delete(attachment: &Attachment, text: &str) -> String {
    let socket = configuration::socket(text);
    if let Err(late) = agent::ask(&socket, &Request::Del(attachment.clone()), SHORT) {
        note(&format!("{attachment} is deleted without the agent: {}", chain(&late)));
        if let Err(error) = records(&socket).and_then(|records| Ok(records.delete(attachment)?)) {
            note(&chain(&error));
        }
    }
    String::new()
}

/// CHECK: asks the agent whether a pod's policies are enforced.
fn check(target: Target, configuration: &Configuration) -> Result<String, Error> {
    let Some(sandbox) = sandbox(target, configuration)? else { return Ok(String::new()) };
    match agent::wait_for(&configuration.settings.socket, &Request::Check(sandbox), SHORT) {
        Ok(()) => Ok(String::new()),
        Err(Late::Refused(reason)) => Err(Error::NotEnforced(reason)),
        Err(late) => Err(Error::TryAgain(late)),
    }
}

/// GC: has the agent forget all attachments that are not in use, or deletes their records where there is no agent.
fn collect(configuration: &Configuration) -> Result<String, Error> {
    let Some(valid) = &configuration.valid else {
        note("the runtime does not say which attachments are in use: nothing is deleted");
        return Ok(String::new());
    };
    let socket = &configuration.settings.socket;
    if agent::ask(socket, &Request::Gc { valid: valid.clone() }, SHORT).is_err() {
        let records = records(socket)?;
        for sandbox in
            records.all()?.into_iter().flatten().filter(|sandbox| !valid.contains(&sandbox.attachment))
        {
            records.delete(&sandbox.attachment)?;
        }
    }
    Ok(String::new())
}

/// STATUS: whether an ADD could succeed.
fn status(configuration: &Configuration) -> Result<String, Error> {
    let settings = &configuration.settings;
    if settings.on_unavailable == OnUnavailable::Wait {
        agent::wait_for(&settings.socket, &Request::Status, SHORT).map_err(Error::Unavailable)?;
    }
    Ok(String::new())
}

/// VERSION: what is supported.
fn versions(text: &str) -> String {
    let version = configuration::version(text).ok().filter(|version| !version.is_empty());
    let object = json!({
        "cniVersion": version.unwrap_or_else(|| NEWEST.into()),
        "supportedVersions": version::SUPPORTED,
    });
    format!("{object}\n")
}

/// The pod's network, if it is a pod of Kubernetes.
fn sandbox(target: Target, configuration: &Configuration) -> Result<Option<Sandbox>, Error> {
    let previous = Previous::read(configuration.previous()?)?;
    let Target { attachment, pod } = target;
    pod.map(|pod| previous.sandbox(attachment, pod)).transpose()
}

fn records(socket: &Path) -> Result<Records, Error> {
    Ok(Records::open(&records::folder(socket))?)
}

/// Says something to the runtime's log.
fn note(text: &str) {
    // Without standard error nobody would read it.
    let _ = writeln!(stderr(), "podfence-cni: {text}");
}
