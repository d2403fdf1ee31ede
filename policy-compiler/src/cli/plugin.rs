//! `kubectl podfence`: the same program under another name.
//!
//! `kubectl NAME …` runs the program `kubectl-NAME …` that it finds in `PATH`, and `kubectl_complete-NAME …` to complete
//! what is typed. Links with these names to `podfence` are all that it takes.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};

use super::args::{Args, SOURCE};

/// The name by which the program was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// `podfence`, or any other name.
    Program,
    /// `kubectl-podfence`
    Plugin,
    /// `kubectl_complete-podfence`
    PluginCompletion,
}

impl Invocation {
    pub(crate) fn of_process() -> Self {
        std::env::args_os().next().map_or(Self::Program, |name| Self::named(&name))
    }

    fn named(program: &OsStr) -> Self {
        match Path::new(program).file_stem().and_then(OsStr::to_str) {
            Some("kubectl-podfence") => Self::Plugin,
            Some("kubectl_complete-podfence") => Self::PluginCompletion,
            _ => Self::Program,
        }
    }

    /// The command line, with the name by which people know it. The plugin asks for no source: it has the cluster.
    pub(crate) fn command(self) -> Command {
        let command = Args::command();
        if self == Self::Program {
            return command;
        }
        command.bin_name("kubectl podfence").mut_subcommands(|command| {
            let help = command.get_after_help().map(|help| as_plugin(&help.to_string()));
            let reads_objects = command.get_groups().any(|group| group.get_id() == SOURCE);
            let command = if reads_objects {
                command.mut_group(SOURCE, |group| group.required(false))
            } else {
                command
            };
            match help {
                Some(help) => command.after_help(help),
                None => command,
            }
        })
    }
}

/// The examples of a help text as the plugin takes them.
fn as_plugin(help: &str) -> String {
    help.replace(" podfence ", " kubectl podfence ")
}

/// Without manifests the plugin reads the cluster.
pub(crate) fn read_cluster_by_default(args: &mut Args) {
    if let Some(manifests) = args.command.manifests_mut() {
        manifests.cluster |= manifests.inputs.is_empty();
    }
}

/// What a shell may do besides offering the candidates (`ShellCompDirective` of the library that `kubectl` uses).
const COMPLETE_FILES: u8 = 0;
const COMPLETE_NOTHING_ELSE: u8 = 4;

/// Writes the candidates for the last of the arguments, one a line with a tab before its description, and the
/// directive. Where there are none, the shell completes names of files.
pub(crate) fn complete(arguments: impl Iterator<Item = OsString>, output: &mut impl Write) -> io::Result<()> {
    let arguments: Vec<_> = arguments.collect();
    let last = arguments.len().saturating_sub(1);
    let mut command = Invocation::PluginCompletion.command();
    let candidates = clap_complete::engine::complete(&mut command, arguments, last, None)?;
    for candidate in &candidates {
        write!(output, "{}", candidate.get_value().display())?;
        match candidate.get_help() {
            Some(help) => writeln!(output, "\t{}", help.to_string().lines().next().unwrap_or_default())?,
            None => writeln!(output)?,
        }
    }
    let directive = if candidates.is_empty() { COMPLETE_FILES } else { COMPLETE_NOTHING_ELSE };
    writeln!(output, ":{directive}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_says_what_it_is() {
        for (name, invocation) in [
            ("podfence", Invocation::Program),
            ("/usr/bin/podfence", Invocation::Program),
            ("/home/jane/.krew/bin/kubectl-podfence", Invocation::Plugin),
            ("kubectl-podfence.exe", Invocation::Plugin),
            ("/usr/local/bin/kubectl_complete-podfence", Invocation::PluginCompletion),
        ] {
            assert_eq!(Invocation::named(name.as_ref()), invocation, "{name}");
        }
    }
}
