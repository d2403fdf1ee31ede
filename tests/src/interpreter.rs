//! A kernel in memory: takes transactions as strictly as `nf_tables` does.

use policy_compiler::ruleset::{Chain, ChainId, Operation, Rule, Ruleset, Set, SetId, Transaction};

/// Carries a transaction out. The table exists.
///
/// # Errors
/// The kernel would refuse an operation: this one.
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
            let chain = Chain { hook: hook.clone(), rules: Vec::new() };
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

fn leads_to(ruleset: &Ruleset, chain: &ChainId) -> bool {
    let rules = ruleset.chains.values().flat_map(|chain| &chain.rules);
    let elements = ruleset.sets.values().flat_map(|set| set.elements.values());
    rules.flat_map(Rule::chains).any(|name| name == chain)
        || elements.filter_map(|element| element.target.as_ref()).any(|name| name == chain)
}

fn is_looked_into(ruleset: &Ruleset, set: &SetId) -> bool {
    ruleset.chains.values().flat_map(|chain| &chain.rules).flat_map(Rule::sets).any(|name| name == set)
}
