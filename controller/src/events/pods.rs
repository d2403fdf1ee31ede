//! Events on pods: the policies deny connections.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use policy_compiler::model::ObjectName;
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::{Content, Failures, event, reference, shortened};
use crate::denials::{About, Notice};
use crate::token_bucket::TokenBucket;

/// The `reason` of an event: the policies deny, the pod sends what is not its own, or its door is unknown.
const DENIED: &str = "PolicyDenied";
const SPOOFED: &str = "Spoofed";
const NO_DOOR: &str = "DoorNotFound";

/// How many events a pod gets at once, and how soon another one.
const OF_A_POD: (u32, Duration) = (25, Duration::from_secs(60));

/// How many requests are made at once, and how soon another one, for all pods.
const IN_ALL: (u32, Duration) = (100, Duration::from_secs(1));

/// How many events are remembered, and for how long: as long as the API server keeps one.
const MEMORY: usize = 512;
const LIFETIME: Duration = Duration::from_secs(3600);

/// Makes Events of denials until there are none to come. What happens again is counted in the event that is
/// there. What cannot be published is in the log.
pub(super) async fn publish(client: &Client, node: &str, mut denials: Receiver<Notice>) {
    let now = Instant::now();
    let (most, interval) = IN_ALL;
    let mut publisher = Publisher {
        client,
        node,
        published: HashMap::new(),
        of_pods: HashMap::new(),
        in_all: TokenBucket::new(most, interval, now),
        failures: Failures::default(),
    };
    while let Some(notice) = denials.recv().await {
        publisher.forget();
        if let Err(error) = publisher.publish(notice).await {
            publisher.failures.report(&error, "pods get no events of what is denied; the log has it");
        }
    }
}

struct Publisher<'a> {
    client: &'a Client,
    node: &'a str,
    published: HashMap<(ObjectName, About), Published>,
    of_pods: HashMap<ObjectName, TokenBucket>,
    in_all: TokenBucket,
    failures: Failures,
}

/// An event that was made.
struct Published {
    name: String,
    count: i32,
    at: Instant,
}

impl Publisher<'_> {
    fn forget(&mut self) {
        let now = Instant::now();
        self.published.retain(|_, published| now.saturating_duration_since(published.at) < LIFETIME);
        self.of_pods.retain(|_, bucket| !bucket.is_full(now));
    }

    async fn publish(&mut self, notice: Notice) -> kube::Result<()> {
        let now = Instant::now();
        if !self.in_all.take(now) {
            return Ok(());
        }
        let Notice { pod, about, packets, message } = notice;
        let packets = i32::try_from(packets).unwrap_or(i32::MAX);
        let events = Api::<Event>::namespaced(self.client.clone(), &pod.namespace);
        let key = (pod, about);
        if let Some(published) = self.published.get_mut(&key) {
            let count = published.count.saturating_add(packets);
            let patch = json!({
                "count": count, "lastTimestamp": Time(Timestamp::now()), "message": shortened(message.clone()),
            });
            match events.patch(&published.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    (published.count, published.at) = (count, now);
                    return Ok(());
                }
                // Its time is over.
                Err(kube::Error::Api(status)) if status.code == 404 => drop(self.published.remove(&key)),
                Err(error) => return Err(error),
            }
        }
        let (most, interval) = OF_A_POD;
        let of_pod =
            self.of_pods.entry(key.0.clone()).or_insert_with(|| TokenBucket::new(most, interval, now));
        if self.published.len() >= MEMORY || !of_pod.take(now) {
            return Ok(());
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), &key.0.namespace);
        let Some(object) = reference(pods, &(), &key.0.name).await? else { return Ok(()) };
        let (kind, reason) = match &key.1 {
            About::NoDoor => ("Warning", NO_DOOR),
            About::Denial(denial) if denial.direction().is_none() => ("Warning", SPOOFED),
            About::Denial(denial) => (if denial.is_audited() { "Normal" } else { "Warning" }, DENIED),
        };
        let content = Content { kind, reason, message, count: packets };
        let event = events.create(&PostParams::default(), &event(self.node, object, content)).await?;
        if let Some(name) = event.metadata.name {
            self.published.insert(key, Published { name, count: packets, at: now });
        }
        Ok(())
    }
}
