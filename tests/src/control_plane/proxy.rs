//! A proxy between an agent and the API server, which does to single kinds of objects what a broken network does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::namespace::Namespace;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// The longest that an answer is held back.
const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// What becomes of the answers to requests for a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Treatment {
    /// They pass.
    #[default]
    Pass,
    /// They are held back until they may pass, lists and watches alike.
    Hold,
    /// Watches begin and then say nothing, those that are open too. Lists pass.
    Silence,
}

/// A proxy that agents reach without TLS, on the loopback address of their namespace. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    tls: Arc<ClientConfig>,
    /// By the plural of the kind.
    treatments: Mutex<BTreeMap<String, Treatment>>,
    ended: AtomicBool,
}

impl Proxy {
    /// Starts one in a namespace from which the API server can be reached.
    pub(super) fn start(namespace: &Namespace, server: SocketAddr, authority: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let treatments = Mutex::default();
        let shared =
            Arc::new(Shared { server, tls: Arc::new(tls), treatments, ended: AtomicBool::new(false) });
        let accepting = shared.clone();
        // Threads that are started in the namespace stay in it.
        let (address, thread) = namespace.run(move || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            let accept = move || accepting.accept(&listener);
            Ok((address, thread::Builder::new().name("proxy".to_owned()).spawn(accept)?))
        })?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where agents reach the API server.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this becomes of the answers to requests for a kind, such as `pods`.
    pub fn treat(&self, kind: &str, treatment: Treatment) {
        let mut treatments = self.shared.treatments.lock().unwrap_or_else(PoisonError::into_inner);
        treatments.insert(kind.to_owned(), treatment);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its threads see the end within an interval.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn treatment(&self, kind: &str) -> Treatment {
        let treatments = self.treatments.lock().unwrap_or_else(PoisonError::into_inner);
        treatments.get(kind).copied().unwrap_or_default()
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let _ = listener.set_nonblocking(true);
        let mut connections = Vec::new();
        while !self.has_ended() {
            match listener.accept() {
                Ok((client, _)) => {
                    let shared = self.clone();
                    // What fails here is a broken connection for the agent.
                    connections.push(thread::spawn(move || drop(shared.relay(&client))));
                }
                Err(_) => thread::sleep(INTERVAL),
            }
        }
        for connection in connections {
            let _ = connection.join();
        }
    }

    /// Relays one request and its answer.
    fn relay(&self, client: &TcpStream) -> Result<()> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(LONGEST_HOLD))?;
        let mut reader = BufReader::new(client.try_clone()?);
        let request = Request::read(&mut reader)?;
        let upstream = TcpStream::connect(self.server)?;
        upstream.set_read_timeout(Some(INTERVAL))?;
        let name = ServerName::IpAddress(self.server.ip().into());
        let mut upstream = StreamOwned::new(ClientConnection::new(self.tls.clone(), name)?, upstream);
        upstream.write_all(&request.bytes)?;
        upstream.flush()?;
        let outcome = self.answer(&request, &mut upstream, client.try_clone()?);
        let _ = client.shutdown(Shutdown::Both);
        outcome
    }

    fn answer(&self, request: &Request, upstream: &mut impl Read, mut client: TcpStream) -> Result<()> {
        let (begin, mut buffer, mut silenced) = (Instant::now(), [0; 1 << 14], false);
        let mut in_head = true;
        while !self.has_ended() {
            let treatment = self.treatment(&request.kind);
            let silent = request.watches && treatment == Treatment::Silence;
            if silenced && !silent {
                // What was not passed on is lost: the agent has to ask again.
                return Ok(());
            }
            if treatment == Treatment::Hold && begin.elapsed() < LONGEST_HOLD {
                thread::sleep(INTERVAL);
                continue;
            }
            let length = match upstream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    silenced |= silent;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let part = buffer.get(..length).unwrap_or_default();
            let head = part.windows(4).position(|end| end == b"\r\n\r\n").map_or(length, |at| at + 4);
            let passes = match (silent, in_head) {
                (false, _) => part,
                (true, true) => part.get(..head).unwrap_or_default(),
                (true, false) => &[],
            };
            in_head &= head == length && !part.ends_with(b"\r\n\r\n");
            silenced |= silent;
            client.write_all(passes)?;
        }
        Ok(())
    }
}

/// A request as it goes to the API server.
struct Request {
    bytes: Vec<u8>,
    /// The plural at the end of its path.
    kind: String,
    watches: bool,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> Result<Self> {
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let target = first.split(' ').nth(1).context("no request")?.to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut bytes = first.clone().into_bytes();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                bail!("the request is cut off");
            }
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            // Each connection carries one request, and no answer is compressed.
            if line == "\r\n" {
                bytes.extend(b"connection: close\r\n\r\n");
                break;
            }
            if !header.starts_with("connection:") && !header.starts_with("accept-encoding:") {
                bytes.extend(line.as_bytes());
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        bytes.extend(body);
        let kind = path.rsplit('/').next().unwrap_or_default().to_owned();
        let watches = query.split('&').any(|parameter| parameter == "watch=true");
        Ok(Self { bytes, kind, watches })
    }
}
