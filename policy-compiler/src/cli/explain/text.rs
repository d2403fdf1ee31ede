//! An explanation for people.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use policy_compiler::explain::{Policy, Rule, Side, TierRule};
use policy_compiler::judge::TrafficRange;

use super::report::{Effects, Explained, Heading, Report};
use crate::cli::output::Output;

/// So many connections or pods are listed before the rest is counted.
const SHOWN: usize = 5;

/// So many pairs of ends are named that differ in nothing but their names.
const PAIRS_SHOWN: usize = 3;

/// Connections of which the same is to be said, but for the traffic.
struct Group<'r> {
    first: &'r Explained,
    traffic: BTreeSet<TrafficRange>,
    /// Others of which the same is to be said, but for the names: those of replicas.
    alike: Vec<&'r Explained>,
}

/// Writes the verdict first, then why, then what would change it.
pub(super) fn write(report: &Report, output: &mut Output) -> anyhow::Result<()> {
    let dim = output.styles.dim;
    report.notes.iter().try_for_each(|note| writeln!(output, "{dim}note: {note}{dim:#}\n"))?;
    let groups = groups(&report.connections);
    let several = groups.len() > 1 || groups.iter().any(|group| !group.alike.is_empty());
    if several {
        write_summary(report, &groups, output)?;
    }
    for group in &groups {
        if several {
            writeln!(output)?;
        }
        write_group(group, output)?;
    }
    write_suggestions(report, output)
}

/// Puts together what differs in nothing but the traffic, and then what differs in nothing but the names.
fn groups(connections: &[Explained]) -> Vec<Group<'_>> {
    let mut groups = Groups::default();
    for connection in connections {
        let group = Group::new(connection);
        let Explained { from, to, family, egress, ingress, .. } = connection;
        let key = format!("{from} {to} {family:?} {egress:?} {ingress:?}");
        groups.add(key, group, |group, other| group.traffic.extend(other.traffic));
    }
    let mut distinct = Groups::default();
    for group in groups.0 {
        let key = format!("{} {:?}", group.first.without_names, group.traffic);
        distinct.add(key, group, |group, other| group.alike.push(other.first));
    }
    distinct.0
}

/// Groups in their order, and where those of a key are.
#[derive(Default)]
struct Groups<'r>(Vec<Group<'r>>, HashMap<String, usize>);

impl<'r> Groups<'r> {
    fn add(&mut self, key: String, group: Group<'r>, join: impl FnOnce(&mut Group<'r>, Group<'r>)) {
        let next = self.0.len();
        match self.0.get_mut(*self.1.entry(key).or_insert(next)) {
            Some(first) => join(first, group),
            None => self.0.push(group),
        }
    }
}

impl<'r> Group<'r> {
    fn new(connection: &'r Explained) -> Self {
        Self { first: connection, traffic: BTreeSet::from([connection.traffic.0]), alike: Vec::new() }
    }
}

fn write_summary(report: &Report, groups: &[Group<'_>], output: &mut Output) -> io::Result<()> {
    let Heading { from, to, port } = &report.heading;
    let (allowed, denied): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.first.verdict.allows());
    let (style, word) = match (allowed.len(), denied.len()) {
        (_, 0) => (output.styles.allow, "ALLOWED"),
        (0, _) => (output.styles.deny, "DENIED"),
        _ => (output.styles.partly, "PARTLY ALLOWED"),
    };
    write!(output, "{style}{word}{style:#}  {from} → {to}")?;
    if let Some(port) = port {
        write!(output, "  {port}")?;
    }
    let ends = |group: &Group<'_>| (group.first.from.clone(), group.first.to.clone());
    let same_ends = groups.windows(2).all(|pair| matches!(pair, [one, other] if ends(one) == ends(other)))
        && groups.iter().all(|group| group.alike.is_empty());
    match allowed.as_slice() {
        _ if allowed.is_empty() || denied.is_empty() => writeln!(output),
        [allowed] if same_ends && allowed.first.family.is_none() => {
            writeln!(output, ": on {} only", text(&allowed.traffic))
        }
        _ => {
            let count = |group: &&Group<'_>| group.traffic.len() * (1 + group.alike.len());
            let allowed: usize = allowed.iter().map(count).sum();
            writeln!(output, ": {allowed} of {} connections allowed", report.connections.len())
        }
    }
}

fn write_group(group: &Group<'_>, output: &mut Output) -> io::Result<()> {
    let Explained { from, to, family, replicas_of, verdict, egress, ingress, .. } = group.first;
    let style = output.styles.verdict(verdict.allows());
    let word = if verdict.allows() { "ALLOWED" } else { "DENIED" };
    write!(output, "{style}{word}{style:#}  {from} → {to}  {}", text(&group.traffic))?;
    if let Some(family) = family {
        write!(output, " over {family}")?;
    }
    if let Some(workload) = replicas_of {
        write!(output, ", between two pods of {workload}")?;
    }
    writeln!(output)?;
    if !group.alike.is_empty() {
        let pair = |it: &&Explained| match (it.from == *from, it.to == *to) {
            (true, _) => format!("→ {}", it.to),
            (_, true) => format!("{} →", it.from),
            _ => format!("{} → {}", it.from, it.to),
        };
        let pairs = group.alike.iter().take(PAIRS_SHOWN).map(pair);
        let more = group.alike.len().saturating_sub(PAIRS_SHOWN);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        writeln!(output, "  and so {}{more}", pairs.collect::<Vec<_>>().join(", "))?;
    }
    writeln!(output)?;
    write_side("egress", egress, output)?;
    write_side("ingress", ingress, output)
}

/// `80/TCP, 443/TCP`; where that is shorter, what is left out of all there is.
fn text(traffic: &BTreeSet<TrafficRange>) -> String {
    let list =
        |ranges: &[TrafficRange]| ranges.iter().map(TrafficRange::to_string).collect::<Vec<_>>().join(", ");
    let traffic: Vec<_> = traffic.iter().copied().collect();
    let rest = TrafficRange::all_but(&traffic);
    match rest.as_slice() {
        [] => "all traffic".to_owned(),
        rest if rest.len() < traffic.len() => format!("all but {}", list(rest)),
        _ => list(&traffic),
    }
}

fn write_side(direction: &str, side: &Side, output: &mut Output) -> io::Result<()> {
    let allowed = side.verdict.allows();
    let style = output.styles.verdict(allowed);
    let word = if allowed { "allowed" } else { "denied" };
    writeln!(output, "  {direction:<8} {style}{word:<8}{style:#} {}", side.reason)?;
    for rules in side.tiers.chunk_by(|one, other| one.policy == other.policy) {
        write_tier_policy(rules, output)?;
    }
    for (policy, rules, hidden) in side.shown() {
        write_policy(direction, policy, output)?;
        rules.into_iter().try_for_each(|rule| write_rule(rule, output))?;
        if hidden > 0 {
            writeln!(output, "      and {hidden} rules further from it")?;
        }
    }
    Ok(())
}

/// Writes the rules of one policy.
fn write_tier_policy(rules: &[TierRule], output: &mut Output) -> io::Result<()> {
    let heading = output.styles.heading;
    let policy = rules.first().map(TierRule::policy_in_words).unwrap_or_default();
    writeln!(output, "    {heading}{policy}{heading:#}")?;
    rules.iter().try_for_each(|rule| write_tier_rule(rule, output))
}

fn write_tier_rule(rule: &TierRule, output: &mut Output) -> io::Result<()> {
    write!(output, "      {}", rule.rule_in_words())?;
    write_origin(rule.origin.as_deref(), output)?;
    writeln!(output, "  {}", rule.effect_in_words())?;
    write_lacks(&rule.peers, rule.ports.as_deref(), output)
}

fn write_policy(direction: &str, policy: &Policy, output: &mut Output) -> io::Result<()> {
    let heading = output.styles.heading;
    write!(output, "    {heading}{}{heading:#}", policy.name)?;
    write_origin(policy.origin.as_deref(), output)?;
    match policy.rules.len() {
        0 => writeln!(output, "\n      has no {direction} rule"),
        _ => writeln!(output),
    }
}

fn write_rule(rule: &Rule, output: &mut Output) -> io::Result<()> {
    write!(output, "      {}", rule.path)?;
    write_origin(rule.origin.as_deref(), output)?;
    writeln!(output, "{}", if rule.covers { "  covers it" } else { "" })?;
    write_lacks(&rule.peers, rule.ports.as_deref(), output)
}

fn write_lacks(peers: &[String], ports: Option<&str>, output: &mut Output) -> io::Result<()> {
    peers.iter().try_for_each(|miss| writeln!(output, "        {miss}"))?;
    ports.iter().try_for_each(|miss| writeln!(output, "        ports: {miss}"))
}

fn write_origin(origin: Option<&str>, output: &mut Output) -> io::Result<()> {
    let dim = output.styles.dim;
    origin.map_or(Ok(()), |origin| write!(output, "  {dim}{origin}{dim:#}"))
}

/// What would let the connections through, what it does besides, and why there may be no such thing.
fn write_suggestions(report: &Report, output: &mut Output) -> anyhow::Result<()> {
    let mut policies = Vec::new();
    for policy in report.connections.iter().flat_map(|it| &it.suggestions) {
        if !policies.contains(&policy) {
            policies.push(policy);
        }
    }
    for obstacle in &report.obstacles {
        writeln!(output, "\nNo policy is suggested: {obstacle}")?;
    }
    if policies.is_empty() {
        return Ok(());
    }
    let heading = output.styles.heading;
    writeln!(output, "\n{heading}To allow it, apply:{heading:#}\n")?;
    write_effects(&report.effects, output)?;
    for (index, policy) in policies.into_iter().enumerate() {
        let separator = if index == 0 { "" } else { "---\n" };
        write!(output, "{separator}{}", serde_yaml::to_string(policy)?)?;
    }
    Ok(())
}

/// Comments of the manifest that follows.
fn write_effects(Effects { opens, isolates }: &Effects, output: &mut Output) -> io::Result<()> {
    let style = output.styles.partly;
    let opened = opens.iter().map(|it| format!("{} → {}  {}", it.from, it.to, it.traffic.0));
    let isolated = isolates.iter().map(|it| format!("{} for {}", it.pod, it.direction));
    for (text, items) in [
        ("It also opens what was not asked for", opened.collect::<Vec<_>>()),
        (
            "It isolates pods that no policy isolates yet; what no rule allows is denied them then",
            isolated.collect(),
        ),
    ] {
        if items.is_empty() {
            continue;
        }
        writeln!(output, "{style}# {text}:{style:#}")?;
        for item in items.iter().take(SHOWN) {
            writeln!(output, "{style}#   {item}{style:#}")?;
        }
        if let Some(more @ 1..) = items.len().checked_sub(SHOWN) {
            writeln!(output, "{style}#   and {more} more{style:#}")?;
        }
    }
    Ok(())
}
