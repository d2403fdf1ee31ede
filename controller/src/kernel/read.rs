//! Reading the table: questions to the kernel, and what its answers mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy_compiler::model::Family;
use policy_compiler::ruleset::{ChainId, Hook, Set, SetId, SetKind, TABLE, TableFamily, Tuple};

use super::channel::{Channel, Question};
use super::element::{ListedElement, assemble, comment, sort, tuple};
use super::error::Error;
use super::table::{Chain, Counter, Place, Rule, Table, Tables};
use super::{Kernel, expression, set, uapi};
use podfence_cni::netlink::{Attributes, text, zero_terminated};

impl Kernel {
    /// The number of the ruleset's last change (`NFTA_GEN_ID`).
    pub(super) fn current_generation(&mut self) -> Result<u32, Error> {
        let mut generation = None;
        let question = Question {
            kind: uapi::NFT_MSG_GETGEN,
            table: TableFamily::Inet,
            all: false,
            names: &[],
            about: "the ruleset's generation",
        };
        self.channel.ask(&question, |message| {
            generation = message.attributes().number(uapi::NFTA_GEN_ID);
            generation.map(drop)
        })?;
        generation.ok_or(Error::Malformed(question.about))
    }

    /// Reads the tables as they are at one moment, and says at which generation that was;
    /// [`Error::Unstable`] if they may have changed in between.
    ///
    /// Others may change what is theirs all the while, as kube-proxy does on a busy node: that moves the
    /// generation on, but not the answers about these tables.
    pub(super) fn read_once(&mut self) -> Result<(u32, Tables), Error> {
        self.others.look()?;
        let before = self.current_generation()?;
        let policies = self.read_table(TableFamily::Inet)?;
        let doors = if self.has_netdev { self.read_table(TableFamily::Netdev)? } else { None };
        let after = self.current_generation()?;
        let seen = self.others.look()?;
        // A change is counted before any of it can be read, and reported when it is complete.
        let reported = seen.generation.unwrap_or(before);
        if seen.changed || reported != after {
            Err(Error::Unstable)
        } else {
            Ok((after, Tables { policies, doors }))
        }
    }

    fn read_table(&mut self, table: TableFamily) -> Result<Option<Table>, Error> {
        let name = zero_terminated(TABLE);
        let names: &[(u16, &[u8])] = &[(uapi::NFTA_ANY_TABLE, &name)];
        let mut flags = None;
        let question =
            Question { kind: uapi::NFT_MSG_GETTABLE, table, all: false, names, about: "the table" };
        let found = self.channel.ask(&question, |message| {
            flags = message.attributes().number(uapi::NFTA_TABLE_FLAGS);
            flags.map(drop)
        })?;
        if !found {
            return Ok(None);
        }
        let flags = flags.ok_or(Error::Malformed(question.about))?;
        let awake = flags & uapi::NFT_TABLE_F_DORMANT == 0;
        // One that was made otherwise never gets an owner.
        let adoptable = self.table_flags == 0 || flags & uapi::NFT_TABLE_F_PERSIST != 0;

        let chains = self.read_chains(table, names)?;
        Ok(Some(Table { family: table, sets: self.read_sets(table, names)?, chains, awake, adoptable }))
    }

    fn read_sets(
        &mut self,
        table: TableFamily,
        names: &[(u16, &[u8])],
    ) -> Result<BTreeMap<SetId, Option<Set>>, Error> {
        let mut kinds = Vec::new();
        let question = Question { kind: uapi::NFT_MSG_GETSET, table, all: true, names, about: "sets" };
        self.channel.ask_all(&question, |message| {
            let attributes = message.attributes();
            // A set without a name of its own comes and goes with the rule that has it.
            if attributes.number(uapi::NFTA_SET_FLAGS).unwrap_or_default() & uapi::NFT_SET_ANONYMOUS == 0 {
                kinds.push((SetId::read(attributes.text(uapi::NFTA_SET_NAME)?), set::parse(attributes)));
            }
            Some(())
        })?;
        let mut sets = BTreeMap::new();
        for (name, kind) in kinds {
            let set = match kind {
                Some(kind) => self.read_set(table, &name, kind)?,
                None => None,
            };
            sets.insert(name, set);
        }
        Ok(sets)
    }

    fn read_chains(
        &mut self,
        table: TableFamily,
        names: &[(u16, &[u8])],
    ) -> Result<BTreeMap<ChainId, Chain>, Error> {
        let mut chains = BTreeMap::new();
        let question = Question { kind: uapi::NFT_MSG_GETCHAIN, table, all: true, names, about: "chains" };
        self.channel.ask_all(&question, |message| {
            let attributes = message.attributes();
            let flags = attributes.number(uapi::NFTA_CHAIN_FLAGS).unwrap_or_default();
            // As with sets, a chain may be part of the rule that jumps to it.
            if attributes.text(uapi::NFTA_ANY_TABLE)? == TABLE && flags & uapi::NFT_CHAIN_BINDING == 0 {
                let name = ChainId::read(attributes.text(uapi::NFTA_CHAIN_NAME)?);
                chains.insert(name, Chain { place: place(table, attributes), rules: Vec::new() });
            }
            Some(())
        })?;
        let question = Question { kind: uapi::NFT_MSG_GETRULE, table, all: true, names, about: "rules" };
        self.channel.ask_all(&question, |message| {
            let attributes = message.attributes();
            if let Some(chain) = chains.get_mut(attributes.text(uapi::NFTA_RULE_CHAIN)?) {
                chain.rules.push(rule(attributes)?);
            }
            Some(())
        })?;
        Ok(chains)
    }

    fn read_set(&mut self, family: TableFamily, name: &SetId, kind: SetKind) -> Result<Option<Set>, Error> {
        if kind.transient().is_some() {
            return Ok(Some(Set::new(kind)));
        }
        let (mut listed, mut foreign) = (Vec::new(), false);
        let found =
            list_elements(&mut self.channel, family, name, |element| match ListedElement::parse(element) {
                Some(element) => listed.push(element),
                None => foreign = true,
            })?;
        if !found {
            return Err(Error::Unstable);
        }
        // While the kernel grows a hash table it loses its place in it: for every element that it leaves out,
        // it repeats another. That is no change of the ruleset, so no generation shows it.
        if sort(&mut listed) {
            return Err(Error::Unstable);
        }
        let elements = if foreign { None } else { assemble(kind, listed) };
        Ok(elements.map(|elements| Set { kind, elements }))
    }
}

/// What a rule has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCounter {
    /// The rule's chain.
    pub chain: ChainId,
    /// What stands beside the rule.
    pub comment: Option<Arc<str>>,
    /// What has traversed it.
    pub counter: Counter,
}

/// Lists what the rules of the tables have counted; nothing if there are none.
///
/// It asks for the rules alone, in a way that nobody waits for, however large the sets are. While a table changes, a
/// rule may be missing.
///
/// # Errors
///
/// [`Error::Socket`]; [`Error::Refused`] without `CAP_NET_ADMIN`; [`Error::Malformed`].
pub fn list_counters() -> Result<Vec<RuleCounter>, Error> {
    let name = zero_terminated(TABLE);
    let names: &[(u16, &[u8])] = &[(uapi::NFTA_ANY_TABLE, &name)];
    let mut channel = Channel::open()?;
    let mut listed = Vec::new();
    for table in TableFamily::BOTH {
        let question = Question { kind: uapi::NFT_MSG_GETRULE, table, all: true, names, about: "rules" };
        // By handle: the kernel may list a rule twice.
        let mut counters = BTreeMap::new();
        channel.ask(&question, |message| {
            let attributes = message.attributes();
            if let Some(counter) = counter_of_rule(attributes) {
                counters.insert(attributes.number64(uapi::NFTA_RULE_HANDLE)?, counter);
            }
            Some(())
        })?;
        listed.extend(counters.into_values());
    }
    Ok(listed)
}

/// How many elements a set of the table `inet podfence` has whose time is not over; `None` if there is no such set.
///
/// Nobody waits for it. While many elements come and go it may be some more or some less.
///
/// # Errors
///
/// As [`list_counters`].
pub fn count_elements(set: &SetId) -> Result<Option<u32>, Error> {
    let mut count = 0;
    let found = list_elements(&mut Channel::open()?, TableFamily::Inet, set, |_| count += 1)?;
    Ok(found.then_some(count))
}

/// The elements of a set of tuples of the table `inet podfence`, however it is declared; none if there is no such set.
///
/// # Errors
///
/// As [`list_counters`].
pub fn list_tuples(family: Family, set: &SetId) -> Result<Vec<Tuple>, Error> {
    let mut tuples = Vec::new();
    list_elements(&mut Channel::open()?, TableFamily::Inet, set, |element| {
        let key = element.nested(uapi::NFTA_SET_ELEM_KEY).and_then(|key| key.get(uapi::NFTA_DATA_VALUE));
        tuples.extend(key.and_then(|key| tuple(family, key)));
    })?;
    Ok(tuples)
}

/// Hands the elements of a set to `each`, and says whether there is the set.
fn list_elements(
    channel: &mut Channel,
    family: TableFamily,
    set: &SetId,
    mut each: impl FnMut(Attributes<'_>),
) -> Result<bool, Error> {
    let (table, set) = (zero_terminated(TABLE), zero_terminated(set.name()));
    let names: &[(u16, &[u8])] = &[(uapi::NFTA_ANY_TABLE, &table), (uapi::NFTA_SET_ELEM_LIST_SET, &set)];
    let question =
        Question { kind: uapi::NFT_MSG_GETSETELEM, table: family, all: true, names, about: "elements" };
    channel.ask(&question, |message| {
        let elements = message.attributes().nested(uapi::NFTA_SET_ELEM_LIST_ELEMENTS);
        elements.into_iter().flat_map(Attributes::iter).for_each(|element| each(Attributes(element.value)));
        Some(())
    })
}

/// What a rule has counted; `None` if it does not count.
fn counter_of_rule(rule: Attributes<'_>) -> Option<RuleCounter> {
    let expressions = rule.nested(uapi::NFTA_RULE_EXPRESSIONS).into_iter().flat_map(Attributes::iter);
    let expression = expressions
        .map(|expression| Attributes(expression.value))
        .find(|expression| expression.text(uapi::NFTA_EXPR_NAME) == Some("counter"))?;
    Some(RuleCounter {
        chain: ChainId::read(rule.text(uapi::NFTA_RULE_CHAIN)?),
        comment: rule.get(uapi::NFTA_RULE_USERDATA).and_then(comment),
        counter: counter(expression.nested(uapi::NFTA_EXPR_DATA).unwrap_or_default()),
    })
}

fn place(table: TableFamily, attributes: Attributes<'_>) -> Place {
    let flags = attributes.number(uapi::NFTA_CHAIN_FLAGS).unwrap_or_default();
    let Some(hook) = attributes.nested(uapi::NFTA_CHAIN_HOOK) else {
        return if flags == 0 { Place::Called } else { Place::Foreign };
    };
    let expected = flags == uapi::NFT_CHAIN_BASE
        && attributes.text(uapi::NFTA_CHAIN_TYPE) == Some("filter")
        && attributes.number(uapi::NFTA_CHAIN_POLICY) == Some(uapi::NF_ACCEPT);
    let priority = hook.number(uapi::NFTA_HOOK_PRIORITY).map(u32::cast_signed);
    let device = || device(hook).map(Arc::from);
    let of_number = match (table, hook.number(uapi::NFTA_HOOK_HOOKNUM)) {
        (TableFamily::Inet, Some(uapi::NF_INET_FORWARD)) => Some(Hook::Forward),
        (TableFamily::Inet, Some(uapi::NF_INET_LOCAL_IN)) => Some(Hook::Input),
        (TableFamily::Inet, Some(uapi::NF_INET_LOCAL_OUT)) => Some(Hook::Output),
        (TableFamily::Netdev, Some(uapi::NF_NETDEV_INGRESS)) => device().map(Hook::Ingress),
        (TableFamily::Netdev, Some(uapi::NF_NETDEV_EGRESS)) => device().map(Hook::Egress),
        _ => None,
    };
    match of_number {
        Some(hook) if expected && priority == Some(hook.priority()) => Place::Hook(hook),
        _ => Place::Foreign,
    }
}

/// The one device of a hook.
fn device(hook: Attributes<'_>) -> Option<&str> {
    let listed: Vec<_> = hook.nested(uapi::NFTA_HOOK_DEVS).into_iter().flat_map(Attributes::iter).collect();
    match *listed {
        [] => hook.text(uapi::NFTA_HOOK_DEV),
        [device] => text(device.value),
        _ => None,
    }
}

/// What the kernel has of a statement `counter` (`NFTA_EXPR_DATA`).
fn counter(data: Attributes<'_>) -> Counter {
    let number = |kind| data.number64(kind).unwrap_or_default();
    Counter { packets: number(uapi::NFTA_COUNTER_PACKETS), bytes: number(uapi::NFTA_COUNTER_BYTES) }
}

fn rule(attributes: Attributes<'_>) -> Option<Rule> {
    let mut rule = Rule {
        handle: attributes.number64(uapi::NFTA_RULE_HANDLE)?,
        comment: attributes.get(uapi::NFTA_RULE_USERDATA).and_then(comment),
        counter: None,
        expressions: Some(Vec::new()),
    };
    for element in attributes.nested(uapi::NFTA_RULE_EXPRESSIONS).into_iter().flat_map(Attributes::iter) {
        let element = Attributes(element.value);
        let name = element.text(uapi::NFTA_EXPR_NAME)?;
        let data = element.nested(uapi::NFTA_EXPR_DATA).unwrap_or_default();
        if name == "counter" {
            rule.counter = Some(counter(data));
        }
        rule.expressions = rule.expressions.zip(expression::parse(name, data)).map(|(mut all, next)| {
            all.push(next);
            all
        });
    }
    Some(rule)
}
