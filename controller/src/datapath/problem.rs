//! What can be wrong with the data path.

use std::fmt;

use policy_compiler::model::Family;

/// Why packets of pods bypass the rules, or may do so, or do not come through at all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Problem {
    /// A bridge with pods on it, and no `br_netfilter` to show their packets to netfilter.
    NoBridgeNetfilter { bridge: String },
    /// A bridge that does not show packets of a family to netfilter, and could not be made to.
    BlindBridge { bridge: String, family: Family, reason: String },
    /// The node forwards no packets of a family in which its pods have addresses.
    NoForwarding(Family),
    /// A device whose packets bypass the node's own network.
    Device { device: String, kind: String },
    /// A device of a kind of which that is not known.
    UnknownDevice { device: String, kind: String },
}

impl Problem {
    /// All kinds, as the metric names them.
    pub(crate) const KINDS: [&str; 5] =
        ["no_bridge_netfilter", "blind_bridge", "no_forwarding", "unsupported_device", "unknown_device"];

    /// Which of [`Problem::KINDS`] it is.
    pub(crate) fn kind(&self) -> &'static str {
        let [no_bridge_netfilter, blind_bridge, no_forwarding, unsupported_device, unknown_device] =
            Self::KINDS;
        match self {
            Self::NoBridgeNetfilter { .. } => no_bridge_netfilter,
            Self::BlindBridge { .. } => blind_bridge,
            Self::NoForwarding(_) => no_forwarding,
            Self::Device { .. } => unsupported_device,
            Self::UnknownDevice { .. } => unknown_device,
        }
    }

    /// Whether it is known that nothing is enforced or forwarded. What may be fine does not take the node out of
    /// service.
    pub(crate) fn is_certain(&self) -> bool {
        !matches!(self, Self::UnknownDevice { .. })
    }

    /// What an event on the node gives as its `reason`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoBridgeNetfilter { .. } | Self::BlindBridge { .. } | Self::Device { .. } => {
                "DatapathBypassed"
            }
            Self::NoForwarding(_) => "ForwardingDisabled",
            Self::UnknownDevice { .. } => "DatapathUnknown",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBridgeNetfilter { bridge } => write!(
                f,
                "nothing is enforced between pods on the bridge {bridge}: \
                 the node lacks the kernel module br_netfilter (`modprobe br_netfilter`)"
            ),
            Self::BlindBridge { bridge, family, reason } => {
                let parameter = match family {
                    Family::Ipv4 => "net.bridge.bridge-nf-call-iptables",
                    Family::Ipv6 => "net.bridge.bridge-nf-call-ip6tables",
                };
                write!(
                    f,
                    "nothing is enforced between pods on the bridge {bridge} over {}: it does not show packets \
                     to netfilter and cannot be made to ({reason}); set {parameter}=1",
                    name(*family)
                )
            }
            Self::NoForwarding(family) => {
                let parameter = match family {
                    Family::Ipv4 => "net.ipv4.ip_forward",
                    Family::Ipv6 => "net.ipv6.conf.all.forwarding",
                };
                write!(
                    f,
                    "the node does not forward the {} packets of its pods: set {parameter}=1",
                    name(*family)
                )
            }
            Self::UnknownDevice { device, kind } => write!(
                f,
                "it is not known whether packets of pods behind {device} traverse the rules: {kind} is a kind of device \
                 that podfence has not been tried with"
            ),
            Self::Device { device, kind } => write!(
                f,
                "nothing is enforced for pods behind {device}: packets of {kind} devices bypass the node; \
                 use a network plugin that routes or bridges them"
            ),
        }
    }
}

/// A family as people write it.
pub(super) fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}
