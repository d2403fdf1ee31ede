//! What the rules in the kernel have counted, as metrics. They are read when somebody asks for them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use policy_compiler::compile::Counted;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tracing::warn;

use crate::error::chain;
use crate::kernel::{Counter, RuleCounter, list_counters};

/// Who asks again within this time gets the same answer.
const FRESH: Duration = Duration::from_secs(1);

/// The counters of the table.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Reading>);

#[derive(Debug, Default)]
struct Reading {
    at: Option<Instant>,
    counters: BTreeMap<Counted, Counter>,
}

/// One of the numbers of a counter.
type Number = fn(&Counter) -> u64;

/// A metric of each number that counters have.
struct Series {
    packets: &'static str,
    bytes: &'static str,
    help: [&'static str; 2],
    /// Whether it is about what is counted.
    holds: fn(&Counted) -> bool,
}

const SERIES: [Series; 5] = [
    Series {
        packets: "rule_packets",
        bytes: "rule_bytes",
        help: [
            "First packets of connections that a policy's rule let through",
            "Bytes of the first packets of connections that a policy's rule let through",
        ],
        holds: |counted| matches!(counted, Counted::Allowed { .. }),
    },
    Series {
        packets: "denied_packets",
        bytes: "denied_bytes",
        help: [
            "Packets that were dropped because these policies isolate the pod and no rule covers them",
            "Bytes of the packets that were dropped because these policies isolate the pod and no rule covers them",
        ],
        holds: |counted| matches!(counted, Counted::Denied { .. }),
    },
    Series {
        packets: "audited_packets",
        bytes: "audited_bytes",
        help: [
            "Packets that no rule covers and that passed because these policies are in audit mode",
            "Bytes of the packets that no rule covers and that passed because these policies are in audit mode",
        ],
        holds: |counted| matches!(counted, Counted::Audited { .. }),
    },
    Series {
        packets: "strict_start_packets",
        bytes: "strict_start_bytes",
        help: [
            "Packets that strict start dropped: no known pod has the address",
            "Bytes of the packets that strict start dropped",
        ],
        holds: |counted| matches!(counted, Counted::StrictStart(_)),
    },
    Series {
        packets: "spoofed_packets",
        bytes: "spoofed_bytes",
        help: [
            "Packets that were dropped at a device because they are not what the pod behind it may send",
            "Bytes of the packets that were dropped at a device because they are not what the pod may send",
        ],
        holds: |counted| matches!(counted, Counted::Spoofed { .. }),
    },
];

impl Reading {
    fn refresh(&mut self) {
        if self.at.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        match list_counters() {
            Ok(listed) => {
                self.counters.clear();
                for RuleCounter { chain, comment, counter } in listed {
                    if let Some(counted) = Counted::by(&chain, comment.as_deref()) {
                        *self.counters.entry(counted).or_default() += counter;
                    }
                }
            }
            Err(error) => warn!(error = chain(&error), "the counters in the kernel cannot be read"),
        }
        self.at = Some(Instant::now());
    }
}

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reading.refresh();
        for Series { packets, bytes, help: [of_packets, of_bytes], holds } in SERIES {
            let numbers: [(_, _, Number); 2] = [
                (packets, of_packets, |counter| counter.packets),
                (bytes, of_bytes, |counter| counter.bytes),
            ];
            for (name, help, number) in numbers {
                let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                for (counted, counter) in reading.counters.iter().filter(|(counted, _)| holds(counted)) {
                    let labels = Labels(counted);
                    metric
                        .encode_family(&labels)?
                        .encode_counter::<NoLabelSet, _, u64>(&number(counter), None)?;
                }
            }
        }
        Ok(())
    }
}

/// What is counted, as labels.
#[derive(Debug)]
struct Labels<'a>(&'a Counted);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        match self.0 {
            Counted::Allowed { direction, policy, rule } => [
                ("direction", direction.as_str()),
                ("namespace", &*policy.namespace),
                ("policy", &*policy.name),
                ("rule", &*rule.to_string()),
            ]
            .encode(encoder),
            Counted::Denied { direction, policies } | Counted::Audited { direction, policies } => {
                [("direction", direction.as_str()), ("policies", policies)].encode(encoder)
            }
            Counted::StrictStart(direction) => [("direction", direction.as_str())].encode(encoder),
            Counted::Spoofed { reason, pod } => {
                let (namespace, pod) = pod.split_once('/').unwrap_or_default();
                [("namespace", namespace), ("pod", pod), ("reason", reason.as_str())].encode(encoder)
            }
        }
    }
}
