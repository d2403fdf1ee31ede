//! What the plugin and the agent say to each other: one JSON object in a line each way, on a connection of its own.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::Timeout;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The folder of the socket and the records, if nothing else is said. It is emptied when the node boots, as sandboxes are.
pub const RUN_FOLDER: &str = "/run/podfence";

/// The name of the socket in its folder.
pub const SOCKET: &str = "cni.sock";

/// A message is at most so long, bytes.
const LONGEST_MESSAGE: u64 = 1 << 20;

/// A socket takes a timeout of zero for none.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(1);

/// An interface in a sandbox: what an ADD attaches and a DEL detaches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `CNI_CONTAINERID`: the sandbox.
    #[serde(rename = "containerID")]
    pub container: String,
    /// `CNI_IFNAME`: the name of the interface in it.
    #[serde(rename = "ifname")]
    pub interface: String,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.interface)
    }
}

/// Which pod a sandbox is of (`CNI_ARGS`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodReference {
    /// `K8S_POD_NAMESPACE`
    pub namespace: String,
    /// `K8S_POD_NAME`
    pub name: String,
    /// `K8S_POD_UID`. Of a static pod, that is the digest of its manifest. Some runtimes leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl fmt::Display for PodReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod's network, as the plugins before this one have made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// What is attached.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// The pod.
    pub pod: PodReference,
    /// The addresses of the interface.
    pub addresses: Vec<IpAddr>,
}

/// What the plugin asks of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "UPPERCASE")]
pub enum Request {
    /// Enforce the policies of a pod, and answer when the kernel does.
    Add(Sandbox),
    /// Forget an attachment, known or not, and free its addresses.
    Del(Attachment),
    /// Say whether the kernel enforces the policies of a pod that was added.
    Check(Sandbox),
    /// Say whether an ADD could succeed.
    Status,
    /// Forget all attachments but these.
    Gc {
        /// Those that are in use.
        valid: Vec<Attachment>,
    },
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It is so.
    Done,
    /// It is not so, and this is why.
    Refused(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens: the agent does not run, or has no socket there.
    #[error("the agent cannot be reached at {path}")]
    Away {
        /// The socket.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke, or the time is over.
    #[error("the agent does not answer")]
    Silent(#[source] io::Error),
}

/// Asks the agent, and waits for its answer for as long as this.
///
/// # Errors
///
/// If there is none.
pub fn ask(socket: &Path, request: &Request, patience: Duration) -> Result<Answer, Error> {
    let away = |source| Error::Away { path: socket.display().to_string(), source };
    let patience = patience.max(SHORTEST_PATIENCE);
    let deadline = Instant::now() + patience;
    let stream = connect(socket, patience).map_err(away)?;
    send(&stream, request).map_err(Error::Silent)?;
    let left = deadline.saturating_duration_since(Instant::now()).max(SHORTEST_PATIENCE);
    stream.set_read_timeout(Some(left)).map_err(Error::Silent)?;
    receive(&stream).map_err(Error::Silent)
}

/// Connects, and waits no longer than this where the agent accepts no connections. Writing is bounded so too.
fn connect(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let stream = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    net::sockopt::set_socket_timeout(&stream, Timeout::Send, Some(patience))?;
    net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
    Ok(stream.into())
}

/// Writes a message.
///
/// # Errors
///
/// If the other side is gone or does not read.
pub fn send(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads a message.
///
/// # Errors
///
/// If there is none, or none of its kind.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST_MESSAGE)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}
