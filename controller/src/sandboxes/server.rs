//! The socket on which the CNI plugin reaches the agent.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use podfence_cni::protocol::{self, Answer};
use tracing::{debug, warn};

use super::Order;

/// How many plugins are served at once at the most; the others are turned away and try again.
const PLUGINS: usize = 512;

/// How long a plugin may take for its question, and to read its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long it waits where it cannot serve any.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket on which the plugin is heard.
pub(crate) struct Server {
    listener: UnixListener,
}

impl Server {
    /// Opens the socket, for root alone. One that an agent before this one has left is replaced.
    ///
    /// # Errors
    ///
    /// If the folder or the socket cannot be made.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener })
    }

    /// Hands on what plugins ask, until nobody takes it any more.
    pub(crate) fn serve(&self, hand_on: &(impl Fn(Order) -> bool + Clone + Send + 'static)) {
        let busy = Arc::new(AtomicUsize::new(0));
        for stream in self.listener.incoming() {
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    warn!(%error, "the CNI plugin cannot be heard");
                    // No descriptors are left, most likely.
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            if busy.load(Ordering::Relaxed) >= PLUGINS {
                continue;
            }
            busy.fetch_add(1, Ordering::Relaxed);
            let (busy, hand_on) = (busy.clone(), hand_on.clone());
            thread::spawn(move || {
                if let Err(error) = answer(&stream, &hand_on) {
                    debug!(%error, "a CNI plugin has hung up");
                }
                busy.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

fn answer(stream: &UnixStream, hand_on: impl Fn(Order) -> bool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = protocol::receive(stream)?;
    let (answer, answered) = mpsc::channel();
    let given = if hand_on(Order { request, answer }) { answered.recv().ok() } else { None };
    protocol::send(stream, &given.unwrap_or_else(|| Answer::Refused("the agent ends".to_owned())))
}
