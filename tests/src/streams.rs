//! Many streams at once: what becomes of open connections when the policies change.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::endpoint::Endpoint;
use crate::probe::Protocol;
use crate::stream::Stream;
use crate::testbed::{BOUND, wait_until};

/// What may pass after a change until the last message of a connection that it denies, on a busy machine.
const CUT: Duration = Duration::from_secs(1);

/// How long a connection that is cut is watched: its ends send a thousand times.
const WATCH: Duration = Duration::from_secs(2);

/// The longest silence on a connection that stays, on a busy machine.
const STALL: Duration = Duration::from_secs(1);

/// The protocols that have streams.
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Opens a stream of each protocol and family.
///
/// # Errors
/// One of them does not come about.
pub fn open_all(client: &Endpoint, server: &Endpoint) -> Result<Vec<Stream>> {
    let families = [true, false].into_iter();
    let kinds = families.flat_map(|ipv4| PROTOCOLS.map(|protocol| (ipv4, protocol)));
    let streams: Vec<_> =
        kinds.map(|(ipv4, protocol)| Stream::open(client, server, ipv4, protocol)).collect::<Result<_>>()?;
    wait_flowing(&streams)?;
    Ok(streams)
}

/// Waits until messages come through in both directions.
///
/// # Errors
/// They do not.
pub fn wait_flowing(streams: &[Stream]) -> Result<()> {
    for stream in streams {
        let before = stream.heard().messages;
        wait_until(BOUND, || {
            ensure!(stream.heard().messages > before + 5, "nothing comes through: {stream}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Watches that the streams die now and stay dead. That nothing comes is seen by waiting only.
///
/// # Errors
/// One of them lives.
pub fn watch_dying(streams: &[Stream]) -> Result<()> {
    let now = Instant::now();
    std::thread::sleep(CUT + WATCH);
    for stream in streams {
        let after = stream.heard().last.saturating_duration_since(now);
        ensure!(after < CUT, "heard {after:?} after the change: {stream}");
    }
    Ok(())
}

/// Sees that the streams have not stalled, and waits until more comes through.
///
/// # Errors
/// One of them was silent, or is.
pub fn check_going_on(streams: &[Stream]) -> Result<()> {
    for stream in streams {
        let gap = stream.heard().longest_gap;
        ensure!(gap < STALL, "silent for {gap:?}: {stream}");
    }
    wait_flowing(streams)
}
