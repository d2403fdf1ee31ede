//! Cuts open connections that a change denies.
//!
//! The rules judge the first packet of a connection; what follows passes as established. So when the enforcer
//! has committed a change, a thread of its own looks through the connections that the change may deny
//! ([`Concerned`]), and asks the enforcer, which knows the rules that are in force, about them. Those that are
//! denied now get their answers barred in the kernel's table (by the enforcer, which owns it); then, and not
//! before, the kernel is made to forget them.
//!
//! A connection that is opened while all this happens has been judged by the new rules already.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use policy_compiler::compile::{Addresses, Concerned, Ends};
use policy_compiler::model::Family;
use tracing::{info, warn};

use crate::error::chain;
use crate::kernel::{self, Connection, Which, forget_connections, list_connections};
use crate::metrics::Metrics;
use crate::threads::Threads;

/// How many connections the enforcer judges, and bars, between two changes: about a millisecond's work.
const PORTION: usize = 500;

/// Up to so many addresses are asked for one by one. Each costs the kernel an eighth of a listing of all
/// connections.
const MOST_ADDRESSES: usize = 4;

/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// The way to the thread that cuts connections.
pub(crate) struct Cutter {
    changes: Sender<Concerned>,
}

/// The addresses of the node: what goes to one of them is not forwarded.
pub(crate) type NodeAddresses = Arc<HashSet<IpAddr>>;

/// Why not all connections that may have to be cut were examined.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error("cannot list the node's own addresses")]
    OwnAddresses(#[source] io::Error),
    #[error("the enforcer cannot judge now")]
    Adjourned,
}

impl Cutter {
    /// Starts the thread, which has connections judged by `judge`: it is given some and the addresses of the node,
    /// and returns those that are denied when their way is barred; `None` if it cannot judge now.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub(crate) fn start(
        judge: impl Fn(Vec<Connection>, &NodeAddresses) -> Option<Vec<Connection>> + Send + 'static,
        metrics: Arc<Metrics>,
        threads: &Threads,
    ) -> anyhow::Result<Self> {
        let (changes, concerned) = mpsc::channel();
        let examiner = Examiner { judge, metrics };
        threads.spawn("cutter", move || examiner.run(&concerned))?;
        Ok(Self { changes })
    }

    /// Has the connections examined that a change concerns, which is in the kernel.
    pub(crate) fn examine(&self, concerned: Concerned) {
        if !concerned.is_none() {
            // The receiver lives as long as the thread, which ends only when this sender is gone.
            let _ = self.changes.send(concerned);
        }
    }
}

struct Examiner<J> {
    judge: J,
    metrics: Arc<Metrics>,
}

impl<J: Fn(Vec<Connection>, &NodeAddresses) -> Option<Vec<Connection>>> Examiner<J> {
    fn run(&self, changes: &Receiver<Concerned>) {
        let mut failed: Option<Concerned> = None;
        loop {
            let next = match failed {
                None => changes.recv().ok(),
                Some(_) => match changes.recv_timeout(RETRY) {
                    Err(RecvTimeoutError::Disconnected) => None,
                    next => Some(next.unwrap_or(Concerned::none())),
                },
            };
            let Some(next) = next else { return };
            let begin = Instant::now();
            let again = failed.is_some();
            let concerned = changes.try_iter().chain(failed.take()).fold(next, Concerned::and);
            match self.examine(&concerned) {
                Ok(0) | Err(Error::Adjourned) => {}
                Ok(cut) => info!(cut, "cut connections that the policies deny"),
                Err(error) => {
                    self.metrics.examination_failure();
                    if !again {
                        warn!(error = chain(&error), "connections that the policies deny may stay open");
                    }
                    failed = Some(concerned);
                }
            }
            // Where there are very many connections, changes without end shall not take a whole processor.
            thread::sleep(begin.elapsed());
        }
    }

    /// Examines the connections, and returns how many have been cut.
    fn examine(&self, concerned: &Concerned) -> Result<usize, Error> {
        let own = Arc::new(own_addresses().map_err(Error::OwnAddresses)?);
        // What the node itself sends is never judged.
        let judged = |source: IpAddr, destination: IpAddr| {
            concerned.contains(source, destination) && !own.contains(&source)
        };
        // One after the other: two at once hinder each other more than they save.
        listings(concerned).into_iter().map(|which| self.pass(which, &own, judged)).sum()
    }

    /// Examines the connections of one listing.
    fn pass(
        &self,
        which: Which,
        own: &NodeAddresses,
        judged: impl Fn(IpAddr, IpAddr) -> bool,
    ) -> Result<usize, Error> {
        let (mut portion, mut cut) = (Vec::new(), 0);
        let listed = list_connections(which, judged, |connection| {
            portion.push(connection);
            if portion.len() == PORTION {
                cut += self.cut(std::mem::take(&mut portion), own)?;
            }
            Ok::<_, Error>(())
        })?;
        self.metrics.examined(listed);
        Ok(cut + self.cut(portion, own)?)
    }

    /// Cuts those of the connections that are denied, and returns how many.
    fn cut(&self, connections: Vec<Connection>, own: &NodeAddresses) -> Result<usize, Error> {
        if connections.is_empty() {
            return Ok(0);
        }
        let denied = (self.judge)(connections, own).ok_or(Error::Adjourned)?;
        let cut = forget_connections(&denied)?;
        self.metrics.cut(cut);
        Ok(cut)
    }
}

/// The listings that together hold all connections concerned.
fn listings(concerned: &Concerned) -> Vec<Which> {
    match concerned {
        Concerned::All => Family::BOTH.map(Which::All).into(),
        Concerned::Ends(Ends { sources, destinations }) => {
            let [from, to] = [sources, destinations].map(|ends| ends.single().filter_map(ipv4));
            let mut ipv4: Vec<_> = from.map(Which::From).chain(to.map(Which::To)).collect();
            let both = || [sources, destinations].into_iter();
            let ranges = || both().flat_map(Addresses::ranges).map(|range| *range.start());
            if ipv4.len() > MOST_ADDRESSES || ranges().any(|first| first.is_ipv4()) {
                ipv4 = vec![Which::All(Family::Ipv4)];
            }
            let singles = both().flat_map(Addresses::single);
            let ipv6 = singles.chain(ranges()).any(|address| address.is_ipv6());
            ipv4.into_iter().chain(ipv6.then_some(Which::All(Family::Ipv6))).collect()
        }
    }
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// The addresses of the node.
fn own_addresses() -> io::Result<HashSet<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| interface.address);
    Ok(addresses
        .filter_map(|address| {
            let ipv4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            ipv4.or(address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use policy_compiler::ruleset::ElementKey;

    use super::*;

    fn addresses(single: &[&str], ranges: &[(&str, &str)]) -> Addresses {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut addresses = Addresses::default();
        for address in single {
            addresses.insert(ElementKey::Address(ip(address)));
        }
        for (first, last) in ranges {
            addresses.insert(ElementKey::AddressRange(ip(first), ip(last)));
        }
        addresses
    }

    #[test]
    fn few_addresses_are_asked_for_one_by_one_where_the_kernel_can() {
        let [all4, all6] = Family::BOTH.map(Which::All);
        let of = |last| Ipv4Addr::new(10, 0, 0, last);
        let (from, to) = (|last| Which::From(of(last)), |last| Which::To(of(last)));
        let none = || addresses(&[], &[]);
        let five = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];
        let cases = [
            (addresses(&["10.0.0.1"], &[]), none(), vec![from(1)]),
            (
                addresses(&["10.0.0.1"], &[]),
                addresses(&["10.0.0.1", "10.0.0.2"], &[]),
                vec![from(1), to(1), to(2)],
            ),
            (addresses(&five[..2], &[]), addresses(&five[2..], &[]), vec![all4]),
            (none(), addresses(&["10.0.0.1", "fd00::1"], &[]), vec![to(1), all6]),
            (addresses(&["fd00::1"], &[]), none(), vec![all6]),
            (none(), addresses(&["fd00::1"], &[("10.0.0.0", "10.0.0.9")]), vec![all4, all6]),
            (addresses(&[], &[("fd00::", "fd00::9")]), addresses(&["10.0.0.1"], &[]), vec![to(1), all6]),
            (none(), none(), vec![]),
        ];
        for (sources, destinations, expected) in cases {
            let concerned = Concerned::Ends(Ends { sources, destinations });
            assert_eq!(listings(&concerned), expected, "{concerned:?}");
        }
        assert_eq!(listings(&Concerned::All), [all4, all6]);
    }
}
