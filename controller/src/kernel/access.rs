//! What the agent asks of `nf_tables`, so that a test can stand between the agent and the kernel.

use policy_compiler::ruleset::Transaction;

use super::{Error, Kernel, Table, Tables};

/// Reads and changes the tables. The methods are those of [`Kernel`].
pub(crate) trait Nftables {
    /// [`Kernel::read_all`]
    fn read_all(&mut self) -> Result<Tables, Error>;

    /// [`Kernel::apply_all`]
    fn apply_all(&mut self, transactions: &[Transaction]) -> Result<(), Error>;

    /// [`Kernel::check_all`]
    fn check_all(&mut self, transactions: &[Transaction]) -> Result<(), Error>;

    /// [`Kernel::read`]
    fn read(&mut self) -> Result<Option<Table>, Error> {
        Ok(self.read_all()?.policies)
    }

    /// [`Kernel::apply`]
    fn apply(&mut self, transaction: &Transaction) -> Result<(), Error> {
        self.apply_all(std::slice::from_ref(transaction))
    }
}

impl Nftables for Kernel {
    fn read_all(&mut self) -> Result<Tables, Error> {
        Self::read_all(self)
    }

    fn apply_all(&mut self, transactions: &[Transaction]) -> Result<(), Error> {
        Self::apply_all(self, transactions)
    }

    fn check_all(&mut self, transactions: &[Transaction]) -> Result<(), Error> {
        Self::check_all(self, transactions)
    }
}
