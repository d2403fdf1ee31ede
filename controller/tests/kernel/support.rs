//! Network namespaces, nft as a witness, and small builders.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use controller::kernel::{Error, Kernel};
use policy_compiler::ruleset::{Ruleset, TABLE, Transaction};

/// Runs a test in a network namespace of its own, in which programs that it starts are as well.
pub(crate) fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let run = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("these tests need root: each makes a network namespace (CAP_SYS_ADMIN)");
        test()
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// A kernel that has a ruleset and nothing else.
pub(crate) fn kernel_with(ruleset: &Ruleset) -> Kernel {
    let mut kernel = Kernel::open().unwrap();
    kernel.apply(&Transaction::replace(ruleset)).unwrap();
    kernel
}

/// Ends an owner of the table. Its socket is gone when no process has it any more, and the other tests start
/// programs, which have it for a moment.
pub(crate) fn end(owner: Kernel) {
    const BOUND: Duration = Duration::from_secs(10);
    drop(owner);
    let begin = Instant::now();
    while nft(&["list", "table", "inet", TABLE], "").contains("flags owner") {
        assert!(begin.elapsed() < BOUND, "the table still has an owner");
    }
}

/// A kernel that has read a table like this, which nobody owns: its owner has ended.
pub(crate) fn kernel_with_orphan(ruleset: &Ruleset) -> Kernel {
    end(kernel_with(ruleset));
    let mut kernel = Kernel::open().unwrap();
    kernel.read().unwrap();
    kernel
}

/// Brings the kernel to the ruleset, from whatever it has, and makes the table its own.
pub(crate) fn take_over(kernel: &mut Kernel, ruleset: &Ruleset) -> Result<(), Error> {
    let transaction = match kernel.read()? {
        Some(table) if table.adoptable => Transaction::adopt(&table.as_ruleset(ruleset), ruleset),
        _ => Transaction::replace(ruleset),
    };
    kernel.apply(&transaction)
}

/// What the kernel has of the expected ruleset.
pub(crate) fn present(kernel: &mut Kernel, expected: &Ruleset) -> Ruleset {
    kernel.read().unwrap().map(|table| table.as_ruleset(expected)).unwrap_or_default()
}

/// Runs nft and returns what it prints.
pub(crate) fn nft(arguments: &[&str], input: &str) -> String {
    try_nft(arguments, input).unwrap_or_else(|errors| panic!("nft {arguments:?}: {errors}\n{input}"))
}

/// Runs nft and returns what it prints, on its standard error if it fails.
pub(crate) fn try_nft(arguments: &[&str], input: &str) -> Result<String, String> {
    run("nft", arguments, input)
}

/// Runs a program and returns what it prints, on its standard error if it fails.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Lets nft do what a line of its language says.
pub(crate) fn tamper(command: &str) {
    nft(&["-f", "-"], command);
}

/// Runs `action` while `others` is done again and again in another thread of the namespace.
pub(crate) fn meanwhile(others: impl Fn() + Sync, action: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stopped);
        scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                others();
            }
        });
        action();
    });
}

/// What `nft list table` prints, elements sorted: the kernel lists hash sets in any order.
pub(crate) fn listing() -> String {
    sorted(&loadable_listing())
}

/// What `nft list table` prints, without the table's flags and its owner: nft cannot load these.
pub(crate) fn loadable_listing() -> String {
    let listing = nft(&["list", "table", "inet", TABLE], "");
    let lines = listing.lines().filter(|line| !line.is_empty() && !line.starts_with("\tflags"));
    lines.map(|line| line.split(" # progname").next().unwrap_or(line).to_owned() + "\n").collect()
}

/// The instructions and user data of all rules, as nft prints them for debugging.
pub(crate) fn instructions() -> Vec<String> {
    let listing = nft(&["--debug=netlink", "list", "table", "inet", TABLE], "");
    let instruction = |line: &&str| line.starts_with("  [ ") || line.starts_with("  userdata");
    listing.lines().filter(instruction).map(str::to_owned).collect()
}

fn sorted(listing: &str) -> String {
    const BEGIN: &str = "elements = { ";
    let mut parts = listing.split(BEGIN);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (mut elements, end) = elements(part);
        elements.sort_unstable();
        result += BEGIN;
        result += &elements.join(",\n");
        result += &part[end..];
    }
    result
}

/// The elements up to the brace that ends them, and where it stands.
fn elements(text: &str) -> (Vec<String>, usize) {
    let (mut elements, mut quoted, mut start) = (Vec::new(), false, 0);
    for (index, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ',' | '}' if !quoted => {
                elements.push(text[start..index].trim().to_owned());
                start = index + 1;
                if character == '}' {
                    return (elements, index);
                }
            }
            _ => {}
        }
    }
    panic!("no end of the elements in {text}");
}
