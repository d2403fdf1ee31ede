//! `--port`

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use policy_compiler::model::{Pod, PortNumber, Protocol, ServicePort, TargetPort, UnknownProtocol};

/// The port that a question is about: `NUMBER[/PROTO]` or `NAME[/PROTO]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortQuery {
    pub(crate) protocol: Protocol,
    pub(crate) port: TargetPort,
}

/// The text is no port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadPort {
    #[error("a port number lies between 1 and 65535")]
    Range,
    #[error("use a number (80, 53/UDP) or the name of a container port (http, dns/UDP)")]
    Text,
    #[error(transparent)]
    Protocol(#[from] UnknownProtocol),
}

impl FromStr for PortQuery {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (port, protocol) = match text.split_once('/') {
            Some((port, protocol)) => (port, protocol.parse()?),
            None => (text, Protocol::Tcp),
        };
        let port = if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
            TargetPort::Number(port.parse().map_err(|_| BadPort::Range)?)
        } else if port.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            TargetPort::Name(port.to_owned())
        } else {
            return Err(BadPort::Text);
        };
        Ok(Self { protocol, port })
    }
}

impl fmt::Display for PortQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            TargetPort::Number(number) => write!(f, "{number}/{}", self.protocol),
            TargetPort::Name(name) => write!(f, "{name}/{}", self.protocol),
        }
    }
}

impl PortQuery {
    /// Whether it means a port of a Service.
    pub(crate) fn is_service_port(&self, port: &ServicePort) -> bool {
        port.protocol == self.protocol
            && match &self.port {
                TargetPort::Number(number) => port.number == *number,
                TargetPort::Name(name) => port.name.as_ref() == Some(name),
            }
    }

    /// Whether it means the port that a Service has at each node.
    pub(crate) fn is_node_port(&self, port: &ServicePort) -> bool {
        port.protocol == self.protocol
            && matches!(self.port, TargetPort::Number(number) if port.node_port == Some(number))
    }

    /// The numbers that it stands for on a destination. An outside address (`None`) has no names. Other than
    /// in a policy, a name means something on a `hostNetwork` pod too.
    pub(crate) fn numbers_on(&self, destination: Option<&Pod>) -> BTreeSet<PortNumber> {
        match &self.port {
            TargetPort::Number(number) => BTreeSet::from([*number]),
            TargetPort::Name(name) => destination
                .iter()
                .flat_map(|pod| &pod.ports)
                .filter(|port| port.protocol == self.protocol && port.name.as_ref() == Some(name))
                .map(|port| port.number)
                .collect(),
        }
    }
}
