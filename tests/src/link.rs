//! Link addresses, and what a namespace's devices have.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::namespace::Namespace;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkAddress(pub [u8; 6]);

impl LinkAddress {
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Where a multicast packet goes on a link (RFC 1112, 6.4, and RFC 2464, 7).
    pub fn of_group(group: IpAddr) -> Self {
        match group {
            IpAddr::V4(group) => {
                let [_, b, c, d] = group.octets();
                Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(group) => {
                let [.., a, b, c, d] = group.octets();
                Self([0x33, 0x33, a, b, c, d])
            }
        }
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|octet| format!("{octet:02x}")).join(":"))
    }
}

impl Namespace {
    /// The link address of a device.
    ///
    /// # Errors
    /// There is no such device, or it has none.
    pub fn link_address(&self, device: &str) -> Result<LinkAddress> {
        let link = self.device("link", device)?;
        let text = link["address"].as_str().with_context(|| format!("{device} has no link address"))?;
        let octets: Vec<u8> =
            text.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>()?;
        let octets = octets.try_into().map_err(|_| anyhow::anyhow!("{text} is no Ethernet address"))?;
        Ok(LinkAddress(octets))
    }

    /// The IPv6 link-local address of a device.
    ///
    /// # Errors
    /// There is no such device, or it has none.
    pub fn link_local(&self, device: &str) -> Result<Ipv6Addr> {
        let link = self.device("address", device)?;
        let addresses = link["addr_info"].as_array().into_iter().flatten();
        let mut local =
            addresses.filter(|address| address["family"] == "inet6" && address["scope"] == "link");
        let text = local.next().and_then(|address| address["local"].as_str());
        Ok(text.with_context(|| format!("{device} has no link-local address"))?.parse()?)
    }

    /// The number of a device.
    ///
    /// # Errors
    /// There is no such device.
    pub fn device_index(&self, device: &str) -> Result<u32> {
        let index = self.device("link", device)?["ifindex"].as_u64();
        Ok(u32::try_from(index.with_context(|| format!("{device} has no number"))?)?)
    }

    /// What `ip` shows of a device: of its link, or of its addresses.
    fn device(&self, what: &str, device: &str) -> Result<Value> {
        let text = self.feed("ip", &["-json", what, "show", "dev", device], "")?;
        let shown: Vec<Value> = serde_json::from_str(&text)?;
        // iproute2 leaves an empty object in the place of a device that it passes over.
        let mut found = shown.into_iter().filter(|link| link["ifname"] == device);
        let link = found.next();
        ensure!(link.is_some(), "there is no device {device}: {text}");
        Ok(link.unwrap_or_default())
    }
}
