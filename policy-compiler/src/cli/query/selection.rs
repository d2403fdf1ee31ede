//! Some ends: `--from` and `--to` of `podfence matrix`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::str::FromStr;

/// Ends that a text stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// An outside address, or the pods that show it.
    Address(IpAddr),
    /// `namespace/`: every pod of it; `outside/` is what no namespace has.
    Namespace(String),
    /// `name`, in every namespace.
    Name(String),
    /// `namespace/name`, or `kind/name` in every namespace.
    Qualified(String, String),
    /// `kind/namespace/name`
    Full(String, String, String),
}

impl FromStr for Selection {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let parts: Vec<_> = text.splitn(3, '/').map(str::to_owned).collect();
        Ok(match <[String; 3]>::try_from(parts) {
            Ok([kind, namespace, name]) => Self::Full(kind, namespace, name),
            Err(_) => match text.split_once('/') {
                None => Self::Name(text.to_owned()),
                Some((namespace, "")) => Self::Namespace(namespace.to_owned()),
                Some((before, name)) => Self::Qualified(before.to_owned(), name.to_owned()),
            },
        })
    }
}
