//! How fast an open connection is dead that a change denies.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::testbed::{BOUND, Testbed, policy, wait_until};
use lab::{Agent, Pod, Protocol, Stream, Topology, Underlay};
use serde_json::json;

use crate::packets::{ipv4, send_new};
use crate::{Figure, percentile};

/// Connections cut, one after the other.
const ROUNDS: usize = 20;

/// The round that counts, in per cent of all, the fastest first.
const MOST: usize = 94;

/// Nothing more is heard on a connection that was silent for so long: its ends send every 2 ms.
const SILENCE: Duration = Duration::from_millis(400);

/// Other connections that the node tracks: this many ports of a pod to each of so many of another.
const PORTS: u16 = 4_000;
const PEER_PORTS: u16 = 50;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let scene = Scene::raise()?;
    let mut alone = scene.cuts()?;
    // They stay for 30 s.
    for port in 0..PEER_PORTS {
        send_new(&scene.client, (ipv4(&scene.client)?, 1024), (ipv4(&scene.other)?, 10_000 + port), PORTS)?;
    }
    let mut beside_many = scene.cuts()?;
    Ok(vec![
        Figure::time(
            "policy written → last byte of an open TCP connection that it denies, 19 of 20",
            "< 100 ms",
            percentile(&mut alone, MOST),
        ),
        Figure::time(
            "the same beside 200,000 other connections",
            "< 100 ms",
            percentile(&mut beside_many, MOST),
        ),
    ])
}

struct Scene {
    testbed: Testbed,
    client: Pod,
    server: Pod,
    other: Pod,
    _agent: Agent,
}

impl Scene {
    fn raise() -> Result<Self> {
        let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node-1"])?;
        let [client, server, other] =
            ["client", "server", "other"].map(|name| testbed.pod("node-1", &format!("bench/{name}"), &[]));
        let agent = testbed.start_agent("node-1")?;
        Ok(Self { client: client?, server: server?, other: other?, _agent: agent, testbed })
    }

    /// Isolates the server of an open connection again and again; how long each was heard of after that.
    fn cuts(&self) -> Result<Vec<Duration>> {
        let isolation =
            json!({"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]});
        let isolation = policy("bench", "isolation", &isolation);
        let cut = |_| {
            let stream = wait_until(BOUND, || Stream::open(&self.client, &self.server, true, Protocol::Tcp))?;
            wait_until(BOUND, || {
                ensure!(stream.heard().messages > 5, "nothing comes through");
                Ok(())
            })?;
            let begin = Instant::now();
            self.testbed.put(&isolation)?;
            wait_until(BOUND, || {
                ensure!(stream.heard().last.elapsed() > SILENCE, "the connection goes on");
                Ok(())
            })?;
            self.testbed.delete(&isolation)?;
            Ok(stream.heard().last.saturating_duration_since(begin))
        };
        (0..ROUNDS).map(cut).collect()
    }
}
