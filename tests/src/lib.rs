//! The lab: a cluster's network made of network namespaces, and real packets in it.
//!
//! A node is a network namespace with a nftables table of its own; a pod is a namespace that hangs on its node
//! by a veth pair, as a CNI plugin would wire it; `world` is everything outside the cluster. All is dual stack.
//! Nothing leaves these namespaces, nothing of the machine's own network is touched, and everything vanishes
//! with the [`Lab`], or with the process, however it ends.
//!
//! ```no_run
//! use lab::{Lab, Outcome, Protocol, Topology, Underlay};
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut lab = Lab::new(Topology::Bridge, Underlay::Vxlan)?;
//! let node = lab.node("node-1")?;
//! let web = lab.pod(&node, "default/web")?;
//! let client = lab.pod(&node, "default/client")?;
//! web.serve(&[(Protocol::Tcp, 80)])?;
//! assert_eq!(lab.connect(&client, web.ipv4(), 80, Protocol::Tcp)?, Outcome::Allowed);
//! # Ok(())
//! # }
//! ```

mod agent;
mod control_plane;
mod endpoint;
mod flow;
pub mod frame;
mod interference;
pub mod interpreter;
mod lab;
mod link;
pub mod listing;
mod manifests;
mod namespace;
mod neighbour;
mod node;
mod packet;
mod pod;
mod privilege;
mod probe;
mod prober;
pub mod programs;
pub mod random;
mod raw;
pub mod segment;
mod server;
mod service;
mod stream;
pub mod streams;
pub mod testbed;
mod wire;

pub use agent::{Agent, program};
pub use control_plane::{Api, ControlPlane, Daemon, Proxy, Treatment, User};
pub use endpoint::Endpoint;
pub use interference::Interference;
pub use lab::{Lab, Topology, Underlay};
pub use link::LinkAddress;
pub use manifests::Manifests;
pub use namespace::Namespace;
pub use node::Node;
pub use packet::{Packet, send_packets};
pub use pod::Pod;
pub use privilege::available;
pub use probe::{Outcome, Probe, Protocol, Reply};
pub use prober::{Incident, Prober, Totals};
pub use service::Service;
pub use stream::{Heard, Stream, new_port};
pub use wire::{Token, Try, Wire, arrivals};
