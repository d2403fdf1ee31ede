//! Connections that the kernel tracks, on the loopback device.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use controller::kernel::{Connection, Error, Which, forget_connections, list_connections};
use policy_compiler::model::{Family, Protocol};
use policy_compiler::ruleset::{Packet, Tuple};

use crate::rulesets::ip;
use crate::support::{in_namespace, nft};

/// Runs a test in a namespace that tracks connections, and translates those to 127.9.9.9 or `fd99::9`.
fn tracking<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    in_namespace(|| {
        let up =
            "ip link set lo up && ip address add fd00::1 dev lo nodad && ip address add fd00::2 dev lo nodad";
        assert!(Command::new("sh").args(["-c", up]).status().unwrap().success());
        wait_for_route("fd00::1");
        wait_for_route("fd00::2");
        let rules = "table inet test {
            chain output {
                type nat hook output priority -100
                ip daddr 127.9.9.9 udp dport 53 dnat ip to 127.0.0.2:5353
                ip6 daddr fd99::9 udp dport 53 dnat ip6 to [fd00::2]:5353
            }
            chain input {
                type filter hook input priority 0
                ct state new accept
            }
        }";
        nft(&["-f", "-"], rules);
        assert!(
            Command::new("ip").args(["route", "add", "fd99::/64", "dev", "lo"]).status().unwrap().success()
        );
        test()
    })
}

/// The kernel has an IPv6 address a moment before it delivers to it, even without duplicate detection.
fn wait_for_route(address: &str) {
    const BOUND: Duration = Duration::from_secs(10);
    let begin = Instant::now();
    let is_local = || {
        let route = Command::new("ip").args(["route", "get", address]).output().unwrap();
        route.stdout.starts_with(b"local")
    };
    while !is_local() {
        assert!(begin.elapsed() < BOUND, "{address} is not local");
    }
}

/// Sends a datagram from an address and a port to another.
fn send(from: &str, source_port: u16, to: &str, port: u16) {
    let socket = UdpSocket::bind(SocketAddr::new(ip(from), source_port)).unwrap();
    socket.send_to(b"x", SocketAddr::new(ip(to), port)).unwrap();
}

fn list(which: Which) -> Vec<Connection> {
    list_where(which, |_, _| true)
}

fn list_where(which: Which, wanted: impl Fn(IpAddr, IpAddr) -> bool) -> Vec<Connection> {
    let mut found = Vec::new();
    let take = |connection: Connection| {
        // The kernel answers some datagrams with ICMP.
        if connection.opening.port.is_some() {
            found.push(connection);
        }
        Ok::<_, Error>(())
    };
    list_connections(which, wanted, take).unwrap();
    found.sort_by_key(|connection| connection.tuple);
    found
}

fn udp(source: &str, source_port: u16, destination: &str, destination_port: u16) -> Tuple {
    let (source, destination) = (ip(source), ip(destination));
    Tuple { source, destination, protocol: Protocol::Udp, source_port, destination_port }
}

fn tuples(which: Which) -> Vec<Tuple> {
    list(which).into_iter().filter_map(|connection| connection.tuple).collect()
}

const ALL4: Which = Which::All(Family::Ipv4);
const ALL6: Which = Which::All(Family::Ipv6);

#[test]
fn connections_are_listed_as_they_were_opened_behind_a_translation() {
    tracking(|| {
        send("127.0.0.1", 1001, "127.0.0.2", 53);
        send("127.0.0.3", 1003, "127.9.9.9", 53);
        send("fd00::1", 1001, "fd00::1", 53);
        send("fd00::1", 1002, "fd99::9", 53);
        let [plain, translated] =
            [udp("127.0.0.1", 1001, "127.0.0.2", 53), udp("127.0.0.3", 1003, "127.0.0.2", 5353)];
        assert_eq!(tuples(ALL4), [plain, translated]);
        assert_eq!(
            tuples(ALL6),
            [udp("fd00::1", 1001, "fd00::1", 53), udp("fd00::1", 1002, "fd00::2", 5353)]
        );
        assert_eq!(tuples(Which::From(Ipv4Addr::LOCALHOST)), [plain]);
        assert_eq!(tuples(Which::To(Ipv4Addr::new(127, 0, 0, 2))), [plain, translated]);
        assert_eq!(tuples(Which::To(Ipv4Addr::new(127, 9, 9, 9))), []);

        let of_one = list_where(ALL4, |source, destination| {
            (source, destination) == (ip("127.0.0.3"), ip("127.0.0.2"))
        });
        let port = Some((Protocol::Udp, 5353));
        let opening = Packet { source: ip("127.0.0.3"), destination: ip("127.0.0.2"), port };
        assert_eq!(of_one.iter().map(|connection| connection.opening).collect::<Vec<_>>(), [opening]);
    });
}

#[test]
fn what_is_forgotten_is_that_and_nothing_else() {
    tracking(|| {
        for port in 1000..1250 {
            send("127.0.0.1", port, "127.0.0.2", 53);
            send("fd00::1", port, "fd00::2", 53);
        }
        send("127.0.0.1", 1000, "127.9.9.9", 53);
        let kept = udp("127.0.0.1", 1000, "127.0.0.2", 5353);
        let (ipv6, mut ipv4) = (list(ALL6), list(ALL4));
        ipv4.retain(|connection| connection.tuple != Some(kept));
        assert_eq!((ipv4.len(), ipv6.len()), (250, 250));

        assert_eq!(forget_connections(&ipv4).unwrap(), 250);
        assert_eq!(tuples(ALL4), [kept]);
        assert_eq!(forget_connections(&[ipv4, ipv6].concat()).unwrap(), 250);
        assert_eq!((tuples(ALL4), tuples(ALL6)), (vec![kept], vec![]));
        assert_eq!(forget_connections(&[]).unwrap(), 0);
        assert_eq!(tuples(ALL4), [kept]);
    });
}

#[test]
fn a_tcp_connection_that_both_ends_have_closed_has_no_tuple() {
    tracking(|| {
        let listener = TcpListener::bind("127.0.0.2:80").unwrap();
        let mut client = TcpStream::connect("127.0.0.2:80").unwrap();
        let (mut server, peer) = listener.accept().unwrap();
        let only = || {
            let connections = list(ALL4);
            assert_eq!(connections.len(), 1);
            connections[0].tuple
        };
        let tuple = only().unwrap();
        assert_eq!((tuple.protocol, tuple.source_port), (Protocol::Tcp, peer.port()));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        server.write_all(b"x").unwrap();
        assert_eq!(only(), Some(tuple));
        client.read_exact(&mut [0]).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        // The last acknowledgement was sent before the end of the stream could be read.
        assert_eq!(only(), None);
    });
}

#[test]
fn a_listing_ends_with_the_first_failure_of_who_reads_it() {
    tracking(|| {
        for port in 1000..1200 {
            send("127.0.0.1", port, "127.0.0.2", 53);
        }
        let mut count = 0;
        let third = |_| {
            count += 1;
            if count < 3 { Ok(()) } else { Err(Error::Unstable) }
        };
        let outcome = list_connections(ALL4, |_, _| true, third);
        assert!(matches!(outcome, Err(Error::Unstable)), "{outcome:?}");
        assert_eq!(count, 3);
    });
}
