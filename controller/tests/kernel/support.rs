//! Network namespaces, nft as a witness, and small builders.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use controller::kernel::{Error, Kernel};
use policy_compiler::ruleset::{Ruleset, TABLE, TableFamily, Transaction};

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
    kernel_with_all(&[ruleset])
}

/// A kernel that has rulesets of several tables and nothing else.
pub(crate) fn kernel_with_all(rulesets: &[&Ruleset]) -> Kernel {
    let mut kernel = Kernel::open().unwrap();
    kernel.apply_all(&replace_all(rulesets)).unwrap();
    kernel
}

/// What puts rulesets in the place of whatever their tables hold.
pub(crate) fn replace_all(rulesets: &[&Ruleset]) -> Vec<Transaction> {
    rulesets.iter().map(|ruleset| Transaction::replace(ruleset)).collect()
}

/// Ends an owner of the tables. Its socket is gone when no process has it any more, and the other tests start
/// programs, which have it for a moment.
pub(crate) fn end(owner: Kernel) {
    const BOUND: Duration = Duration::from_secs(10);
    drop(owner);
    let begin = Instant::now();
    while raw_listing().contains("flags owner") {
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
    take_over_all(kernel, &[ruleset])
}

/// The same with rulesets of several tables.
pub(crate) fn take_over_all(kernel: &mut Kernel, rulesets: &[&Ruleset]) -> Result<(), Error> {
    let tables = kernel.read_all()?;
    let transaction = |ruleset: &&Ruleset| match tables.iter().find(|table| table.family == ruleset.table) {
        Some(table) if table.adoptable => Transaction::adopt(&table.as_ruleset(ruleset), ruleset),
        _ => Transaction::replace(ruleset),
    };
    kernel.apply_all(&rulesets.iter().map(transaction).collect::<Vec<_>>())
}

/// What the kernel has of the expected ruleset.
pub(crate) fn present(kernel: &mut Kernel, expected: &Ruleset) -> Ruleset {
    let tables = kernel.read_all().unwrap();
    let table = tables.iter().find(|table| table.family == expected.table);
    let nothing = || Ruleset { table: expected.table, ..Ruleset::default() };
    table.map_or_else(nothing, |table| table.as_ruleset(expected))
}

/// Whether the kernel has these rulesets.
pub(crate) fn are_present(kernel: &mut Kernel, rulesets: &[&Ruleset]) -> bool {
    rulesets.iter().all(|ruleset| present(kernel, ruleset) == **ruleset)
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

/// Runs lines of `ip`.
pub(crate) fn ip(script: &str) {
    try_ip(script).unwrap_or_else(|errors| panic!("{errors}{script}"));
}

/// Runs lines of `ip`, and returns what it prints on its standard error if it fails.
pub(crate) fn try_ip(script: &str) -> Result<String, String> {
    run("ip", &["-batch", "-"], script)
}

/// What `nft list table` prints of the tables, elements sorted: the kernel lists hash sets in any order.
pub(crate) fn listing() -> String {
    sorted(&loadable_listing())
}

/// What `nft list table` prints of the tables, without their flags and owners: nft cannot load these.
pub(crate) fn loadable_listing() -> String {
    let listing = raw_listing();
    let lines = listing.lines().filter(|line| !line.is_empty() && !line.starts_with("\tflags"));
    lines.map(|line| line.split(" # progname").next().unwrap_or(line).to_owned() + "\n").collect()
}

fn raw_listing() -> String {
    list_tables(&[])
}

/// The instructions and user data of all rules, as nft prints them for debugging.
pub(crate) fn instructions() -> Vec<String> {
    let listing = list_tables(&["--debug=netlink"]);
    let instruction = |line: &&str| line.starts_with("  [ ") || line.starts_with("  userdata");
    listing.lines().filter(instruction).map(str::to_owned).collect()
}

/// Both tables, as far as they exist.
fn list_tables(options: &[&str]) -> String {
    let list = |family: TableFamily| {
        let listing = try_nft(&[options, &["list", "table", &family.to_string(), TABLE]].concat(), "");
        listing.unwrap_or_else(|errors| {
            assert!(errors.contains("No such file"), "{errors}");
            String::new()
        })
    };
    TableFamily::BOTH.map(list).concat()
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
