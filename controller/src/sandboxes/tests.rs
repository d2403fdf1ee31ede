//! What becomes of a pod, in whatever order plugin and source report it.

use std::sync::mpsc::{self, Receiver};

use tempfile::TempDir;

use super::*;

const UID: &str = "0b1c2d3e-0000-0000-0000-000000000001";
const OTHER_UID: &str = "0b1c2d3e-0000-0000-0000-000000000002";
const NODE: &str = "node-1";

/// What is reported.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The pod has this UID, and its status shows these addresses.
    Shown(&'static str, &'static [&'static str]),
    /// The object is gone.
    Gone,
    /// A sandbox of the pod with this UID is added, with these addresses.
    Add(&'static str, &'static str, &'static [&'static str]),
    /// A sandbox is deleted.
    Del(&'static str),
    /// Of all sandboxes this one is valid.
    Gc(&'static str),
    /// Another agent begins.
    Restart,
}
use Step::{Add, Del, Gc, Gone, Restart, Shown};

/// What the kernel enforces.
#[derive(Debug, Clone)]
struct Kernel {
    in_step: Result<(), &'static str>,
    guard: Guard,
    restored: bool,
}

const ENFORCED: Kernel = Kernel { in_step: Ok(()), guard: Guard::Complete, restored: false };

impl Enforcement for Kernel {
    fn in_step(&self) -> Result<(), String> {
        self.in_step.map_err(str::to_owned)
    }

    fn door(&self, _: &ObjectName) -> Guard {
        self.guard
    }

    fn is_restored(&self, _: &Sandbox) -> bool {
        self.restored
    }
}

/// The sandboxes of a node with one pod.
struct Scene {
    folder: TempDir,
    sandboxes: Sandboxes,
    asked: tokio::sync::mpsc::UnboundedReceiver<ObjectName>,
    kernel: Kernel,
    /// The pod as it is enforced.
    enforced: Option<Pod>,
    shown: Option<Pod>,
}

impl Scene {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (sandboxes, asked) = open(&folder);
        Self { folder, sandboxes, asked, kernel: ENFORCED, enforced: None, shown: None }
    }

    fn step(&mut self, step: Step) {
        match step {
            Shown(uid, addresses) => {
                let pod = Pod {
                    uid: PodUid::parse(uid),
                    node: Some(NODE.into()),
                    addresses: parse(addresses),
                    ..Pod::new(name())
                };
                self.shown = Some(pod);
                self.note();
            }
            Gone => {
                self.shown = None;
                self.note();
            }
            Add(container, uid, addresses) => {
                drop(self.ask(Request::Add(sandbox(container, uid, addresses))));
            }
            Del(container) => drop(self.ask(Request::Del(attachment(container)))),
            Gc(container) => drop(self.ask(Request::Gc { valid: vec![attachment(container)] })),
            Restart => {
                (self.sandboxes, self.asked) = open(&self.folder);
                self.enforced = None;
                self.note();
            }
        }
    }

    fn note(&mut self) {
        self.enforced = self.sandboxes.note(&name(), self.shown.clone());
    }

    fn ask(&mut self, request: Request) -> Receiver<Answer> {
        let (answer, answered) = mpsc::channel();
        let order = Order { request, answer };
        for (changed, pod) in self.sandboxes.take(order, &self.kernel) {
            assert_eq!(changed, name());
            self.enforced = pod;
        }
        answered
    }
}

fn open(folder: &TempDir) -> (Sandboxes, tokio::sync::mpsc::UnboundedReceiver<ObjectName>) {
    let (unknown, asked) = tokio::sync::mpsc::unbounded_channel();
    (Sandboxes::open(NODE, folder.path(), unknown, Arc::default()).unwrap(), asked)
}

fn name() -> ObjectName {
    ObjectName::new("shop", "backend")
}

fn parse(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn attachment(container: &str) -> Attachment {
    Attachment { container: container.to_owned(), interface: "eth0".to_owned() }
}

fn sandbox(container: &str, uid: &str, addresses: &[&str]) -> Sandbox {
    let ObjectName { namespace, name } = name();
    Sandbox {
        attachment: attachment(container),
        pod: PodReference {
            namespace: namespace.to_string(),
            name: name.to_string(),
            uid: (!uid.is_empty()).then(|| uid.to_owned()),
        },
        addresses: parse(addresses),
    }
}

const OLD: &[&str] = &["10.0.0.1"];
const NEW: &[&str] = &["10.0.0.2"];
const BOTH: &[&str] = &["10.0.0.1", "fd00::1"];

#[test]
fn a_pod_has_the_addresses_of_its_sandboxes_until_its_status_says_the_same() {
    /// The addresses of the pod as it is enforced, and whether it is taken for one that has finished.
    type Expected = Option<(&'static [&'static str], bool)>;
    let table: &[(&str, &[Step], Expected)] = &[
        ("the plugin is first", &[Shown(UID, &[]), Add("a", UID, OLD)], Some((OLD, false))),
        ("the object is last", &[Add("a", UID, BOTH), Shown(UID, &[])], Some((BOTH, false))),
        ("an older status", &[Shown(UID, OLD), Add("a", UID, NEW)], Some((NEW, false))),
        ("half of the status", &[Add("a", UID, BOTH), Shown(UID, OLD)], Some((BOTH, false))),
        (
            "the status counts from then on",
            &[Add("a", UID, OLD), Shown(UID, OLD), Shown(UID, NEW)],
            Some((NEW, false)),
        ),
        ("a runtime without UIDs", &[Shown(UID, &[]), Add("a", "", OLD)], Some((OLD, false))),
        ("another pod of the name", &[Shown(OTHER_UID, NEW), Add("a", UID, OLD)], Some((NEW, false))),
        ("the sandbox is gone", &[Add("a", UID, OLD), Shown(UID, OLD), Del("a")], Some((&[], false))),
        ("and was never shown", &[Shown(UID, &[]), Add("a", UID, OLD), Del("a")], Some((&[], false))),
        (
            "its status is late",
            &[Shown(UID, &[]), Add("a", UID, OLD), Del("a"), Shown(UID, OLD)],
            Some((&[], false)),
        ),
        ("one comes after it", &[Shown(UID, OLD), Del("a"), Add("b", UID, NEW)], Some((NEW, false))),
        (
            "with the same address",
            &[Shown(UID, OLD), Add("a", UID, OLD), Del("a"), Add("b", UID, OLD)],
            Some((OLD, false)),
        ),
        (
            "one before the other is gone",
            &[Shown(UID, &[]), Add("a", UID, OLD), Add("b", UID, NEW)],
            Some((&["10.0.0.1", "10.0.0.2"], false)),
        ),
        (
            "an address is used anew",
            &[Shown(UID, OLD), Add("a", UID, OLD), Add("b", UID, OLD), Del("a")],
            Some((OLD, false)),
        ),
        (
            "the status of a freed address ends",
            &[Shown(UID, OLD), Add("a", UID, OLD), Del("a"), Shown(UID, NEW), Shown(UID, OLD)],
            Some((OLD, false)),
        ),
        ("garbage", &[Shown(UID, OLD), Add("a", UID, OLD), Gc("b")], Some((&[], false))),
        ("no garbage", &[Shown(UID, OLD), Add("a", UID, OLD), Gc("a")], Some((OLD, false))),
        ("the object goes first", &[Shown(UID, OLD), Add("a", UID, OLD), Gone], Some((OLD, true))),
        ("and then the sandbox", &[Shown(UID, OLD), Add("a", UID, OLD), Gone, Del("a")], None),
        ("the sandbox goes first", &[Shown(UID, OLD), Add("a", UID, OLD), Del("a"), Gone], None),
        ("no plugin", &[Shown(UID, OLD)], Some((OLD, false))),
        ("another agent", &[Shown(UID, &[]), Add("a", UID, OLD), Restart], Some((OLD, false))),
        (
            "another agent, gone",
            &[Shown(UID, OLD), Add("a", UID, OLD), Del("a"), Restart],
            Some((OLD, false)),
        ),
    ];
    for (what, steps, expected) in table {
        let mut scene = Scene::new();
        steps.iter().for_each(|step| scene.step(*step));
        let enforced = scene.enforced.map(|pod| (pod.addresses, pod.finished));
        assert_eq!(enforced, expected.map(|(addresses, finished)| (parse(addresses), finished)), "{what}");
    }
}

#[test]
fn the_plugin_is_answered_when_the_pod_is_enforced() {
    let with = |guard| Kernel { guard, ..ENFORCED };
    for (kernel, answered) in [
        (ENFORCED, true),
        (with(Guard::Unknown { required: false }), false),
        (with(Guard::Unknown { required: true }), false),
        (Kernel { in_step: Err("the kernel refuses"), ..ENFORCED }, false),
    ] {
        let mut scene = Scene::new();
        let answer = scene.ask(Request::Add(sandbox("a", UID, OLD)));
        scene.sandboxes.answer(&ENFORCED);
        assert!(answer.try_recv().is_err(), "the pod is unknown");
        assert_eq!(scene.asked.try_recv(), Ok(name()), "the source is asked for it");
        scene.step(Shown(OTHER_UID, &[]));
        scene.sandboxes.answer(&ENFORCED);
        assert!(answer.try_recv().is_err(), "it is another pod");
        scene.step(Shown(UID, &[]));
        scene.sandboxes.answer(&kernel);
        assert_eq!(answer.try_recv() == Ok(Answer::Done), answered, "{kernel:?}");
        assert_eq!(scene.sandboxes.look_again().is_none(), answered, "{kernel:?}");
        drop(scene.ask(Request::Del(attachment("a"))));
        scene.sandboxes.answer(&ENFORCED);
        assert!(answer.recv().is_err(), "nobody waits for a sandbox that is gone");
    }
}

#[test]
fn a_pod_that_the_restored_table_enforces_waits_for_nothing() {
    let mut scene = Scene::new();
    let unknown = Err("the objects are not known");
    scene.kernel = Kernel { in_step: unknown, restored: true, ..ENFORCED };
    assert_eq!(scene.ask(Request::Add(sandbox("a", UID, OLD))).try_recv(), Ok(Answer::Done));
    assert!(scene.sandboxes.look_again().is_none());
    let refused = Answer::Refused("the objects are not known".to_owned());
    assert_eq!(scene.ask(Request::Status).try_recv(), Ok(refused));
    scene.step(Shown(UID, &[]));
    assert_eq!(scene.enforced.map(|pod| pod.addresses), Some(parse(OLD)), "it stays attached");
}

#[test]
fn a_check_says_what_is_not_as_it_was_added() {
    let mut scene = Scene::new();
    let check = |scene: &mut Scene, addresses| match scene
        .ask(Request::Check(sandbox("a", UID, addresses)))
        .recv()
        .unwrap()
    {
        Answer::Done => "done".to_owned(),
        Answer::Refused(reason) => reason,
    };
    assert_eq!(check(&mut scene, OLD), "a/eth0 is not attached");
    drop(scene.ask(Request::Add(sandbox("a", UID, OLD))));
    assert!(check(&mut scene, OLD).starts_with("pod shop/backend with this UID is unknown on node node-1"));
    scene.step(Shown(UID, &[]));
    assert_eq!(check(&mut scene, OLD), "done");
    assert_eq!(check(&mut scene, NEW), "a/eth0 was attached with the addresses 10.0.0.1, not 10.0.0.2");
}

#[test]
fn a_record_that_cannot_be_read_is_passed_over() {
    let scene = Scene::new();
    std::fs::write(scene.folder.path().join("b:eth0.json"), "{").unwrap();
    let (sandboxes, _) = open(&scene.folder);
    assert!(sandboxes.attached.is_empty());
}
