//! From the tables as the kernel has them to what is expected.

use policy_compiler::compile::{self, Compiler};
use policy_compiler::model::Family;
use policy_compiler::ruleset::{Operation, Ruleset, TableFamily, Transaction};

use crate::kernel::{self, Table, Tables, list_tuples};

/// Leads from what was found of both tables to what is expected.
pub(super) fn adopt_all(found: &Tables, compiler: &Compiler) -> Vec<Transaction> {
    let policies = adopt(found.policies.as_ref(), compiler.ruleset());
    let doors = match (&found.doors, compiler.door_ruleset()) {
        (found, Some(expected)) => Some(adopt(found.as_ref(), expected)),
        (Some(_), None) => {
            Some(Transaction { table: TableFamily::Netdev, operations: vec![Operation::DeleteTable] })
        }
        (None, None) => None,
    };
    std::iter::once(policies).chain(doors).collect()
}

/// Where the table of policies is replaced: what an agent before this one has cut stays cut.
pub(super) fn keep_barred(mut transactions: Vec<Transaction>) -> Result<Vec<Transaction>, kernel::Error> {
    let replaced = |transaction: &&mut Transaction| {
        transaction.table == TableFamily::Inet && transaction.operations.contains(&Operation::DeleteTable)
    };
    for transaction in transactions.iter_mut().filter(replaced) {
        for family in Family::BOTH {
            let barred = list_tuples(family, &compile::barred(family))?;
            transaction.operations.extend(compile::bar(barred).operations);
        }
    }
    Ok(transactions)
}

/// Leads from what was found of a table to what is expected.
fn adopt(found: Option<&Table>, expected: &Ruleset) -> Transaction {
    match found {
        Some(table) if table.adoptable => Transaction::adopt(&table.as_ruleset(expected), expected),
        _ => Transaction::replace(expected),
    }
}
