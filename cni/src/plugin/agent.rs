//! The agent, as the plugin sees it.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use podfence_cni::protocol::{self, Answer, Request};

use super::error::Late;

/// How often an agent that is away is looked for.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks the agent until it answers or the time is over. So nothing fails while one agent replaces another.
pub(crate) fn wait_for(socket: &Path, request: &Request, patience: Duration) -> Result<(), Late> {
    let deadline = Instant::now() + patience;
    loop {
        match ask(socket, request, deadline.saturating_duration_since(Instant::now())) {
            Err(Late::Silent(_)) if Instant::now() + INTERVAL < deadline => sleep(INTERVAL),
            result => return result,
        }
    }
}

/// Asks the agent once.
pub(crate) fn ask(socket: &Path, request: &Request, patience: Duration) -> Result<(), Late> {
    match protocol::ask(socket, request, patience)? {
        Answer::Done => Ok(()),
        Answer::Refused(reason) => Err(Late::Refused(reason)),
    }
}
