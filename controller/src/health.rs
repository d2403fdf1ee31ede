//! What the agent says of itself over HTTP: `/healthz`, `/readyz`, `/metrics`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, response::IntoResponse};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// How long an address may be somebody else's: longer than an agent takes to stop.
const LISTEN_BOUND: Duration = Duration::from_secs(5);
const LISTEN_RETRY: Duration = Duration::from_millis(50);

/// What can keep the agent from enforcing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// Whether the objects are known.
    Source,
    /// Whether the kernel has what the objects ask for.
    Kernel,
    /// Whether strict start, if it is asked for, knows the addresses to guard.
    PodRanges,
    /// Whether packets of pods come past the rules.
    Datapath,
    /// Whether the kernel takes every policy.
    Policies,
    /// Whether every object of the API server can be read.
    Objects,
}

impl Condition {
    /// Whether the agent is ready without it: where one object is at fault, everything else is enforced, and the
    /// object is closed. Whoever may write a policy must not be able to hold up the agents' upgrades.
    fn is_tolerable(self) -> bool {
        matches!(self, Self::Policies | Self::Objects)
    }
}

/// Whether the agent enforces, and if not, why; shared by all who know.
#[derive(Clone)]
pub(crate) struct Health(Arc<Mutex<BTreeMap<Condition, String>>>);

impl Default for Health {
    /// Not ready: nothing is known and nothing is enforced.
    fn default() -> Self {
        let reasons = [
            (Condition::Source, "the objects have not been read yet".to_owned()),
            (Condition::Kernel, "the kernel has not been programmed yet".to_owned()),
        ];
        Self(Arc::new(Mutex::new(BTreeMap::from(reasons))))
    }
}

impl Health {
    /// Says that a condition holds.
    pub(crate) fn good(&self, condition: Condition) {
        self.reasons(|reasons| reasons.remove(&condition));
    }

    /// Says that a condition does not hold, and why.
    pub(crate) fn bad(&self, condition: Condition, reason: String) {
        self.reasons(|reasons| reasons.insert(condition, reason));
    }

    /// Why the agent is not ready; nothing if it is.
    pub(crate) fn why_not_ready(&self) -> Option<String> {
        self.summary(|condition| !condition.is_tolerable())
    }

    /// What is wrong although the agent is ready; `None` if nothing is.
    pub(crate) fn remarks(&self) -> Option<String> {
        self.summary(Condition::is_tolerable)
    }

    fn summary(&self, which: impl Fn(Condition) -> bool) -> Option<String> {
        self.reasons(|reasons| {
            let chosen = reasons.iter().filter(|(condition, _)| which(**condition));
            let all: Vec<&str> = chosen.map(|(_, reason)| reason.as_str()).collect();
            (!all.is_empty()).then(|| all.join("; "))
        })
    }

    fn reasons<T>(&self, action: impl FnOnce(&mut BTreeMap<Condition, String>) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

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
