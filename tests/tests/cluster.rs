//! The agent beside a real API server.

use anyhow::Result;
use lab::{ControlPlane, Lab, Topology, Underlay};

#[test]
fn it_starts() -> Result<()> {
    let lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
    let begin = std::time::Instant::now();
    let plane = ControlPlane::start(lab.world().namespace(), lab.world().ipv4())?;
    eprintln!("{:?}", begin.elapsed());
    plane
        .api()
        .apply(&serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))?;
    eprintln!("{}", plane.api().get("/api/v1/namespaces/shop")?);
    Ok(())
}
