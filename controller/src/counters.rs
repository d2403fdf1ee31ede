//! What the rules in the kernel have counted, and how full the sets of barred answers are, as metrics. They are read
//! when somebody asks for them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use policy_compiler::compile::{Counted, barred};
use policy_compiler::model::Family;
use policy_compiler::ruleset::{KeyType, SetKind};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tracing::warn;

use crate::error::chain;
use crate::kernel::{self, Counter, RuleCounter, count_elements, list_counters};

/// Who asks again within this time gets the same answer.
const FRESH: Duration = Duration::from_secs(1);

/// The counters of the table.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Reading>);

#[derive(Debug, Default)]
struct Reading {
    at: Option<Instant>,
    counters: BTreeMap<Counted, Counter>,
    /// How many connections that were cut have their answers barred.
    barred: BTreeMap<Family, u32>,
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

const SERIES: [Series; 7] = [
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
        packets: "tier_rule_packets",
        bytes: "tier_rule_bytes",
        help: [
            "Packets that a rule of a ClusterNetworkPolicy covered; of connections that it let through the first ones",
            "Bytes of the packets that a rule of a ClusterNetworkPolicy covered",
        ],
        holds: |counted| matches!(counted, Counted::Tier { .. }),
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
        packets: "untracked_packets",
        bytes: "untracked_bytes",
        help: [
            "Packets of isolated pods that were dropped because no rule covers them, and that conntrack does not \
             track: they may be answers",
            "Bytes of the packets that were dropped and that conntrack does not track",
        ],
        holds: |counted| matches!(counted, Counted::Untracked(_)),
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
        match count_barred() {
            Ok(barred) => self.barred = barred,
            Err(error) => warn!(error = chain(&error), "the barred answers in the kernel cannot be counted"),
        }
        self.at = Some(Instant::now());
    }
}

/// How many answers are barred, of the families that have a set for them.
fn count_barred() -> Result<BTreeMap<Family, u32>, kernel::Error> {
    let count = |family| Ok(count_elements(&barred(family))?.map(|count| (family, count)));
    Family::BOTH.into_iter().filter_map(|family| count(family).transpose()).collect()
}

/// How many answers of a family can be barred at once.
fn most_barred(family: Family) -> u32 {
    let set = SetKind { key: KeyType::Tuple(family), interval: false, verdicts: false };
    set.transient().map_or(0, |transient| transient.size)
}

impl Reading {
    fn encode_barred(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let limits = self.barred.keys().map(|family| (*family, most_barred(*family))).collect();
        for (name, help, numbers) in [
            (
                "connections_barred",
                "Connections that were cut lately and whose answers are dropped, so that they do not come back",
                &self.barred,
            ),
            (
                "connections_barred_limit",
                "The most connections whose answers can be dropped at once; what is cut beyond may come back",
                &limits,
            ),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (family, number) in numbers {
                metric.encode_family(&[("family", family.to_string())])?.encode_gauge(number)?;
            }
        }
        Ok(())
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
        reading.encode_barred(&mut encoder)
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
            Counted::Tier { direction, tier, policy, rule, effect } => [
                ("direction", direction.as_str()),
                ("tier", tier.as_str()),
                ("policy", policy),
                ("rule", &*rule.to_string()),
                ("action", effect.as_str()),
            ]
            .encode(encoder),
            Counted::Denied { direction, policies } | Counted::Audited { direction, policies } => {
                [("direction", direction.as_str()), ("policies", policies)].encode(encoder)
            }
            Counted::Untracked(direction) | Counted::StrictStart(direction) => {
                [("direction", direction.as_str())].encode(encoder)
            }
            Counted::Spoofed { reason, pod } => {
                let (namespace, pod) = pod.split_once('/').unwrap_or_default();
                [("namespace", namespace), ("pod", pod), ("reason", reason.as_str())].encode(encoder)
            }
        }
    }
}
