//! Upgrades: what an older agent left in the kernel holds until today's agent takes it over, and nothing opens meanwhile.
//!
//! The tables below `upgrade/` are those that earlier versions printed (`podfence compile`) and programmed for
//! `examples/frontend-to-backend`, whose addresses are those of the lab.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lab::listing::Listing;
use lab::streams::{check_going_on, open_all};
use lab::testbed::{Testbed, listen};
use lab::{Agent, Pod, Probe, Prober, Protocol, Topology, Underlay, on_each_topology};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/frontend-to-backend/manifests.yaml");

const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upgrade");

/// What the versions did not have yet whose tables there are.
const VERSIONS: [&str; 2] = ["without-denial-logs", "without-cluster-policies"];

/// How often each upgrade is tried.
const UPGRADES: usize = 3;

const BACKEND: u16 = 8080;
const DATABASE: u16 = 5432;

/// The pods of the example.
struct Scene {
    testbed: Testbed,
    frontend: Pod,
    stranger: Pod,
    backend: Pod,
    database: Pod,
}

impl Scene {
    fn raise(topology: Topology) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::Vxlan, &["node-1", "node-2"])?;
        testbed.manifests.write("example.yaml", &fs::read_to_string(EXAMPLE)?)?;
        let mut pod = |node, name| -> Result<Pod> {
            let node = testbed.node(node)?.clone();
            let pod = testbed.lab.pod(&node, name)?;
            listen(&pod, &[BACKEND, DATABASE])?;
            Ok(pod)
        };
        let (frontend, stranger) = (pod("node-1", "shop/frontend")?, pod("node-1", "other/stranger")?);
        let (backend, database) = (pod("node-2", "shop/backend")?, pod("node-2", "shop/database")?);
        Ok(Self { testbed, frontend, stranger, backend, database })
    }

    fn allowed(&self) -> Vec<Probe> {
        [
            both(&self.frontend, &self.backend, BACKEND, Protocol::Tcp),
            both(&self.backend, &self.database, DATABASE, Protocol::Tcp),
            both(&self.backend, &self.stranger, BACKEND, Protocol::Udp),
        ]
        .concat()
    }

    fn denied(&self) -> Vec<Probe> {
        [
            both(&self.stranger, &self.backend, BACKEND, Protocol::Tcp),
            both(&self.stranger, &self.frontend, BACKEND, Protocol::Udp),
            both(&self.frontend, &self.backend, DATABASE, Protocol::Tcp),
            both(&self.frontend, &self.database, DATABASE, Protocol::Udp),
            both(&self.database, &self.stranger, BACKEND, Protocol::Udp),
        ]
        .concat()
    }

    /// Leaves the tables of a version in the kernels, in place of what is there.
    fn leave(&self, version: &str) -> Result<()> {
        self.testbed.lab.nodes().iter().try_for_each(|node| {
            let path = Path::new(TABLES).join(version).join(format!("{}.nft", node.name()));
            let table = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let is_there = Listing::of(node.namespace())? != Listing::default();
            let delete = if is_there { "delete table inet podfence" } else { "" };
            node.namespace().nft(&format!("{delete}\n{table}"))
        })
    }
}

fn both(from: &Pod, to: &Pod, port: u16, protocol: Protocol) -> Vec<Probe> {
    [to.ipv4(), to.ipv6()].map(|address| Probe::new(from, address, port, protocol)).to_vec()
}

fn an_upgrade_takes_the_table_over_without_a_gap(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    for version in VERSIONS {
        scene.leave(version)?;
        let streams = open_all(&scene.backend, &scene.stranger)?;
        for _ in 0..UPGRADES {
            scene.leave(version)?;
            let prober = Prober::start(&scene.allowed(), &scene.denied())?;
            let agents = scene.testbed.start_agents()?;
            // What a node has that never had another version.
            scene.testbed.wait_in_step()?;
            let totals = prober.stop()?;
            assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{version}: {totals:?}");
            assert!(totals.allowed.min(totals.denied) > 100, "{version}: {totals:?}");
            agents.into_iter().for_each(Agent::kill);
        }
        check_going_on(&streams)?;
    }
    Ok(())
}

on_each_topology! {
    an_upgrade_takes_the_table_over_without_a_gap
}
