//! Pods, and the workloads that stand for one.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Family, Labels, ObjectName, Origin, PortNumber, Protocol};

/// A pod, or a workload that stands for one pod of its template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// The kind of the workload that it stands for, such as `Deployment`; `None` for a Pod. Only a Pod is always allowed
    /// to reach itself: what a workload sends to itself goes from one of its pods to another.
    pub workload: Option<Arc<str>>,
    /// By what the pod is told from others of its name; `None` where nothing says it.
    pub uid: Option<PodUid>,
    /// `metadata.labels`
    pub labels: Labels,
    /// `spec.nodeName`; `None` until the pod is scheduled, and for a workload whose template names no node.
    pub node: Option<Arc<str>>,
    /// `spec.hostNetwork`: the pod shares its node's addresses and no selector matches it.
    pub host_network: bool,
    /// `status.phase` is `Succeeded` or `Failed`: the pod's addresses may belong to another by now. As long as none
    /// shows them, the pod stays isolated, and it is nobody's peer.
    pub finished: bool,
    /// `metadata.deletionTimestamp` is set: the pod is on its way out and may have lost its addresses.
    pub ending: bool,
    /// `metadata.creationTimestamp` as the API server writes it: RFC 3339 in UTC, to the second, so that the texts
    /// are in the order of the times. `None` in most manifests.
    pub created: Option<Box<str>>,
    /// Every entry of `status.podIPs`; empty where the pod has none yet, and for workloads.
    pub addresses: Vec<IpAddr>,
    /// The ports of all containers and of restartable init containers, in the order of the object.
    pub ports: Vec<ContainerPort>,
    /// Where it was written.
    pub origin: Option<Origin>,
}

/// `metadata.uid`. Of the object that shows a static pod it is the annotation [`STATIC_POD_ANNOTATION`]: by that the node
/// knows the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PodUid([u8; 16]);

/// The annotation in which the object that shows a static pod has the identifier by which its node knows the pod.
pub const STATIC_POD_ANNOTATION: &str = "kubernetes.io/config.hash";

impl PodUid {
    /// The one that is written so, in 32 hexadecimal digits with or without dashes; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|letter| *letter != '-').collect();
        let is_written = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_written
            .then(|| u128::from_str_radix(&digits, 16).ok())
            .flatten()
            .map(|uid| Self(uid.to_be_bytes()))
    }
}

/// `core/v1 ContainerPort`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    /// `name`
    pub name: Option<String>,
    /// `protocol`
    pub protocol: Protocol,
    /// `containerPort`
    pub number: PortNumber,
}

impl Pod {
    /// A pod of which nothing but the name is known.
    pub fn new(name: ObjectName) -> Self {
        Self {
            name,
            workload: None,
            uid: None,
            labels: Labels::new(),
            node: None,
            host_network: false,
            finished: false,
            ending: false,
            created: None,
            addresses: Vec::new(),
            ports: Vec::new(),
            origin: None,
        }
    }

    /// Whether selectors can match it as a peer, and as a subject whatever others show its addresses: it has a network
    /// of its own and lives.
    pub fn selectable(&self) -> bool {
        !self.host_network && !self.finished
    }

    /// Which of several pods has an address that all of them show, most likely: the greatest. An address goes from a
    /// pod that ends to one that begins. Policies do not rely on it: they judge for each of the pods.
    pub fn claim(&self) -> impl Ord + '_ {
        (!self.ending, self.created.as_deref(), Reverse(&self.name))
    }

    /// Its addresses of one family.
    pub fn addresses_of(&self, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied().filter(move |address| Family::of(*address) == family)
    }

    /// The numbers that a policy's named port has on this pod: by name and protocol, every one of them.
    /// None on a `hostNetwork` pod and on one that has finished.
    pub fn resolve<'a>(&'a self, name: &'a str, protocol: Protocol) -> impl Iterator<Item = PortNumber> + 'a {
        self.ports
            .iter()
            .filter(move |port| {
                self.selectable() && port.protocol == protocol && port.name.as_deref() == Some(name)
            })
            .map(|port| port.number)
    }
}
