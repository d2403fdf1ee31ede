//! A kernel in memory: takes transactions as strictly as `nf_tables` does, and judges packets by a ruleset.

use std::net::IpAddr;

use policy_compiler::model::{Family, Protocol};
use policy_compiler::ruleset::{
    Chain, ChainName, Element, ElementKey, Fields, Hook, Operation, Rule, Ruleset, Set, SetName, Statement,
    Transaction, Verdict,
};

/// The first packet of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// `ip saddr`
    pub source: IpAddr,
    /// `ip daddr`
    pub destination: IpAddr,
    /// `meta l4proto`
    pub protocol: Protocol,
    /// `th dport`
    pub port: u16,
}

/// Carries a transaction out. The table exists.
///
/// # Errors
/// The operation that the kernel would refuse; nothing has changed then.
pub fn apply(ruleset: &mut Ruleset, transaction: &Transaction) -> Result<(), String> {
    let mut next = ruleset.clone();
    for operation in &transaction.operations {
        apply_one(&mut next, operation).ok_or_else(|| format!("refused: {operation:?}"))?;
    }
    *ruleset = next;
    Ok(())
}

fn apply_one(ruleset: &mut Ruleset, operation: &Operation) -> Option<()> {
    match operation {
        Operation::AddTable | Operation::OwnTable => {}
        Operation::DeleteTable => *ruleset = Ruleset::default(),
        Operation::AddSet(name, kind) => fresh(ruleset.sets.insert(name.clone(), Set::new(*kind)).is_none())?,
        Operation::AddChain(name, hook) => {
            let chain = Chain { hook: *hook, rules: Vec::new() };
            fresh(ruleset.chains.insert(name.clone(), chain).is_none())?;
        }
        Operation::FlushChain(name) => ruleset.chains.get_mut(name)?.rules.clear(),
        Operation::DeleteElements(name, elements) => {
            let set = ruleset.sets.get_mut(name)?;
            elements.iter().try_for_each(|(key, _)| set.elements.remove(key).map(drop))?;
        }
        Operation::AddElements(name, elements) => {
            for (key, element) in elements {
                if let Some(target) = &element.target {
                    ruleset.chains.get(target)?;
                }
                fresh(ruleset.sets.get_mut(name)?.elements.insert(*key, element.clone()).is_none())?;
            }
        }
        Operation::AddRule(name, rule) => {
            rule.chains().try_for_each(|chain| ruleset.chains.get(chain).map(drop))?;
            rule.sets().try_for_each(|set| ruleset.sets.get(set).map(drop))?;
            ruleset.chains.get_mut(name)?.rules.push(rule.clone());
        }
        Operation::DeleteChain(name) => {
            let chain = ruleset.chains.remove(name)?;
            (chain.rules.is_empty() && !leads_to(ruleset, name)).then_some(())?;
        }
        Operation::DeleteSet(name) => {
            ruleset.sets.remove(name)?;
            (!is_looked_into(ruleset, name)).then_some(())?;
        }
    }
    Some(())
}

/// What is added must not have been there.
fn fresh(new: bool) -> Option<()> {
    new.then_some(())
}

fn leads_to(ruleset: &Ruleset, chain: &ChainName) -> bool {
    let rules = ruleset.chains.values().flat_map(|chain| &chain.rules);
    let elements = ruleset.sets.values().flat_map(|set| set.elements.values());
    rules.flat_map(Rule::chains).any(|name| name == chain)
        || elements.filter_map(|element| element.target.as_ref()).any(|name| name == chain)
}

fn is_looked_into(ruleset: &Ruleset, set: &SetName) -> bool {
    ruleset.chains.values().flat_map(|chain| &chain.rules).flat_map(Rule::sets).any(|name| name == set)
}

/// Whether the node forwards a packet.
///
/// # Panics
/// If the ruleset refers to something that it does not have.
pub fn forwards(ruleset: &Ruleset, packet: &Packet) -> bool {
    let mut hooked = ruleset.chains.iter().filter(|(_, chain)| chain.hook == Some(Hook::Forward));
    hooked.all(|(base, _)| run(ruleset, base, packet, 0) != Some(false))
}

/// The final verdict of a chain; `None` if it returns.
fn run(ruleset: &Ruleset, name: &ChainName, packet: &Packet, depth: usize) -> Option<bool> {
    assert!(depth < 16, "the kernel follows no more than 16 jumps");
    let chain = &ruleset.chains[name];
    for rule in &chain.rules {
        for statement in &rule.statements {
            let verdict = match statement {
                Statement::EstablishedOrRelated
                | Statement::NeighbourDiscovery
                | Statement::SourceIsLocal => break,
                Statement::InSet(fields, set) => match look_up(&ruleset.sets[set], *fields, packet) {
                    Some(_) => continue,
                    None => break,
                },
                Statement::VerdictMap(fields, map) => match look_up(&ruleset.sets[map], *fields, packet) {
                    Some(Element { target: Some(chain), .. }) => Verdict::Goto(chain.clone()),
                    _ => break,
                },
                Statement::Counter => continue,
                Statement::Verdict(verdict) => verdict.clone(),
            };
            match verdict {
                Verdict::Accept => return Some(true),
                Verdict::Drop => return Some(false),
                Verdict::Return => return None,
                Verdict::Goto(chain) => return run(ruleset, &chain, packet, depth + 1),
                Verdict::Jump(chain) => {
                    if let Some(verdict) = run(ruleset, &chain, packet, depth + 1) {
                        return Some(verdict);
                    }
                }
            }
        }
    }
    None
}

/// The element that holds the fields.
fn look_up<'a>(set: &'a Set, fields: Fields, packet: &Packet) -> Option<&'a Element> {
    let (source, destination) = (packet.source, packet.destination);
    let family = Family::of(source);
    let key = match fields {
        Fields::Source(of) => (of == family).then_some(ElementKey::Address(source)),
        Fields::Destination(of) => (of == family).then_some(ElementKey::Address(destination)),
        Fields::SourceAndDestination(of) => {
            (of == family).then_some(ElementKey::AddressPair(source, destination))
        }
        Fields::ProtocolAndPort => Some(ElementKey::ProtocolPort(packet.protocol, packet.port, packet.port)),
    }?;
    let holds = |element: &ElementKey| match (*element, key) {
        (ElementKey::AddressRange(first, last), ElementKey::Address(address)) => {
            first <= address && address <= last
        }
        (ElementKey::ProtocolPort(protocol, first, last), ElementKey::ProtocolPort(asked, port, _)) => {
            protocol == asked && first <= port && port <= last
        }
        (element, key) => element == key,
    };
    let mut others = set.elements.iter().filter(|(element, _)| holds(element)).map(|(_, element)| element);
    set.elements.get(&key).or_else(|| others.next())
}
