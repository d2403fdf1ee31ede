//! What the enforcer hears from the other threads.

use std::sync::mpsc::Sender;

use crate::boot::NodePods;
use crate::cutter::NodeAddresses;
use crate::denials::{Denial, Findings};
use crate::kernel::Connection;
use crate::sandboxes::Order;
use crate::source::Changes;

/// A message to the enforcer.
#[derive(Debug)]
pub(crate) enum Message {
    /// Objects have changed.
    Changes(Changes),
    /// Somebody else may have changed a table.
    TableChanged,
    /// Devices or routes of the node have changed.
    LinksChanged,
    /// Connections are open that a change may deny.
    Judge(Case),
    /// The CNI plugin asks for something.
    Sandbox(Order),
    /// Packets are dropped, and somebody asks why.
    Explain(Question),
    /// Somebody asks for the node's pods, as they are in the kernel.
    NodePods(Sender<NodePods>),
    /// The agent ends. The rules stay.
    Stop,
}

/// Connections that wait for the enforcer's verdict.
#[derive(Debug)]
pub(crate) struct Case {
    /// The connections.
    pub(crate) connections: Vec<Connection>,
    /// The addresses of the node.
    pub(crate) own: NodeAddresses,
    /// Takes those that are denied, when their way is barred. To drop it is to adjourn the case: the enforcer
    /// will have all connections examined later.
    pub(crate) denied: Sender<Vec<Connection>>,
}

/// Asks the enforcer for what decides about packets.
#[derive(Debug)]
pub(crate) struct Question {
    /// The packets.
    pub(crate) denial: Denial,
    /// Takes the answer. To drop it is to say that the objects are not known yet.
    pub(crate) answer: Sender<Findings>,
}
