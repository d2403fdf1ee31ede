//! What the agent says of itself over HTTP: `/healthz`, `/readyz`, `/metrics`.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, response::IntoResponse};
use tokio::net::TcpListener;

use crate::health::Health;
use crate::metrics::Metrics;

/// How long an address may be somebody else's: longer than an agent takes to stop.
const LISTEN_BOUND: Duration = Duration::from_secs(5);
const LISTEN_RETRY: Duration = Duration::from_millis(50);

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: Arc<Metrics>,
    /// Held by the one whose metrics are being collected.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Answers until the process ends.
///
/// # Errors
///
/// If the address cannot be listened on, or is still somebody else's after [`LISTEN_BOUND`].
pub(crate) async fn serve(listen: SocketAddr, health: Health, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let listener = bind(listen).await?;
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Shared { health, metrics, turn: Arc::default() });
    axum::serve(listener, routes).await
}

/// Listens. The agent before this one may not have ended yet, and what is enforced does not wait for this.
async fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let begin = Instant::now();
    loop {
        match TcpListener::bind(listen).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begin.elapsed() < LISTEN_BOUND => {
                tokio::time::sleep(LISTEN_RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    match shared.health.why_not_ready() {
        None => {
            let remarks = shared.health.remarks().map(|remarks| format!("{remarks}\n"));
            (StatusCode::OK, format!("ok\n{}", remarks.unwrap_or_default()))
        }
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics_text(State(shared): State<Shared>) -> impl IntoResponse {
    shared.metrics.ready(shared.health.why_not_ready().is_none());
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    // The kernel is asked, which takes its time: others are answered meanwhile, and many scrapes wait in line.
    let _turn = shared.turn.lock().await;
    let text = tokio::task::spawn_blocking(move || shared.metrics.text()).await;
    match text {
        Ok(text) => ([("content-type", openmetrics)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
