//! The listeners of an endpoint, all served by one thread.

use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, ipproto, listen, recv, recvfrom, send,
    sendto, sockopt,
};

use crate::flow::{family, open_socket};
use crate::namespace::Namespace;
use crate::probe::Protocol;
use crate::raw::{answer_sctp, behind_header};

/// Longest message that is echoed whole, bytes.
const BUFFER: usize = 2048;
/// What a listener may keep unread when the machine is busy, bytes.
pub(crate) const RECEIVE_BUFFER: usize = 8 << 20;
/// Connections that wait to be accepted, on each listener.
const BACKLOG: i32 = 4096;

/// Listens on ports: answers every message (a datagram, or what one read of a stream gives) with the message
/// followed by the server's name, and an SCTP INIT with an INIT ACK that holds the name. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(
        name: &str,
        namespace: &Namespace,
        addresses: &[IpAddr],
        ports: &BTreeSet<(Protocol, u16)>,
    ) -> Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let mut listeners = Listeners {
            name: name.to_owned(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sockets: HashMap::new(),
            next: 1,
            sctp: ports
                .iter()
                .filter(|(protocol, _)| *protocol == Protocol::Sctp)
                .map(|(_, port)| *port)
                .collect(),
        };
        epoll::add(&listeners.epoll, &stop, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        namespace.run(|| {
            for address in addresses {
                for (protocol, port) in ports.iter().filter(|(protocol, _)| *protocol != Protocol::Sctp) {
                    listeners
                        .listen(SocketAddr::new(*address, *port), *protocol)
                        .with_context(|| format!("{name} cannot listen on {address} {port}/{protocol}"))?;
                }
                if !listeners.sctp.is_empty() {
                    listeners.listen(SocketAddr::new(*address, 0), Protocol::Sctp)?;
                }
            }
            Ok(())
        })?;
        let thread =
            std::thread::Builder::new().name(format!("server {name}")).spawn(move || listeners.serve())?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Adding one to an eventfd of zero cannot fail, and a panic of the thread was printed when it happened.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

enum Socket {
    Listener(OwnedFd),
    Connection(OwnedFd),
    Datagrams(OwnedFd),
    Sctp(OwnedFd, bool),
}

struct Listeners {
    name: String,
    epoll: OwnedFd,
    sockets: HashMap<u64, Socket>,
    next: u64,
    sctp: BTreeSet<u16>,
}

impl Listeners {
    fn listen(&mut self, address: SocketAddr, protocol: Protocol) -> Result<()> {
        let (kind, number) = match protocol {
            Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
            Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
            Protocol::Sctp => (SocketType::RAW, ipproto::SCTP),
            // The kernel answers echo requests.
            Protocol::Icmp => return Ok(()),
        };
        let socket = open_socket(family(address.ip()), kind, number)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
        }
        bind(&socket, &address)?;
        self.add(match protocol {
            Protocol::Tcp => {
                listen(&socket, BACKLOG)?;
                Socket::Listener(socket)
            }
            Protocol::Sctp => Socket::Sctp(socket, address.is_ipv4()),
            _ => Socket::Datagrams(socket),
        })?;
        Ok(())
    }

    fn add(&mut self, socket: Socket) -> Result<(), Errno> {
        let (Socket::Listener(fd) | Socket::Connection(fd) | Socket::Datagrams(fd) | Socket::Sctp(fd, _)) =
            &socket;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(self.next), epoll::EventFlags::IN)?;
        self.sockets.insert(self.next, socket);
        self.next += 1;
        Ok(())
    }

    /// Serves until it is told to stop.
    fn serve(mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &events {
                match event.data.u64() {
                    0 => return,
                    key => self.attend(key),
                }
            }
        }
    }

    /// Answers one message. What a client does wrong is the client's trouble: it gets no answer.
    fn attend(&mut self, key: u64) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        match self.sockets.get(&key) {
            Some(Socket::Listener(listener)) => {
                if let Ok(connection) = accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    // Nothing of a closed connection may keep the namespace alive.
                    let _ = sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
                    let _ = self.add(Socket::Connection(connection));
                }
            }
            Some(Socket::Connection(connection)) => match recv(connection, &mut buffer, RecvFlags::empty()) {
                Ok(((message, _), _)) if !message.is_empty() => {
                    let answer = [&*message, self.name.as_bytes()].concat();
                    let _ = send(connection, &answer, SendFlags::NOSIGNAL);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                _ => drop(self.sockets.remove(&key)),
            },
            Some(Socket::Datagrams(socket)) => {
                if let Ok(((message, _), _, Some(client))) = recvfrom(socket, &mut buffer, RecvFlags::empty())
                {
                    let _ = sendto(
                        socket,
                        &[&*message, self.name.as_bytes()].concat(),
                        SendFlags::empty(),
                        &client,
                    );
                }
            }
            Some(Socket::Sctp(socket, ipv4)) => {
                if let Ok(((packet, _), _, Some(client))) = recvfrom(socket, &mut buffer, RecvFlags::empty())
                {
                    let segment = behind_header(packet, *ipv4);
                    if let Some(answer) = answer_sctp(segment, &self.name, |port| self.sctp.contains(&port)) {
                        let _ = sendto(socket, &answer, SendFlags::empty(), &client);
                    }
                }
            }
            None => {}
        }
    }
}
