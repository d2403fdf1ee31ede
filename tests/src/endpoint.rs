//! Whoever can open connections and listen: a pod, a node, or the world outside.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::probe::Protocol;
use crate::server::Server;

/// A namespace with addresses and listeners. A handle: clones mean the same endpoint.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    name: String,
    namespace: Namespace,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    addresses: Vec<IpAddr>,
    ports: BTreeSet<(Protocol, u16)>,
    server: Option<Server>,
}

impl Endpoint {
    pub(crate) fn new(name: &str, namespace: Namespace) -> Self {
        Self(Arc::new(Inner { name: name.to_owned(), namespace, state: Mutex::default() }))
    }

    /// Its name: `namespace/pod`, the node's name, or `world`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The network namespace, to run anything else in it.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Its addresses, IPv4 before IPv6.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.state().addresses.clone()
    }

    /// Its first IPv4 address.
    ///
    /// # Panics
    /// It has none (any more).
    pub fn ipv4(&self) -> IpAddr {
        self.first(IpAddr::is_ipv4)
    }

    /// Its first IPv6 address.
    ///
    /// # Panics
    /// It has none (any more).
    pub fn ipv6(&self) -> IpAddr {
        self.first(IpAddr::is_ipv6)
    }

    /// Listens on these ports too, on all its addresses, those that come later included.
    ///
    /// # Errors
    /// A port is taken by somebody else.
    pub fn serve(&self, ports: &[(Protocol, u16)]) -> Result<()> {
        let mut state = self.state();
        state.ports.extend(ports);
        self.restart_server(&mut state)
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<IpAddr>) -> Result<()> {
        let mut state = self.state();
        state.addresses = addresses;
        self.restart_server(&mut state)
    }

    pub(crate) fn stop_server(&self) {
        self.state().server = None;
    }

    /// Listeners are bound to one address each, so that answers come from the address that was asked.
    fn restart_server(&self, state: &mut State) -> Result<()> {
        state.server = None;
        if !state.ports.is_empty() {
            let server = Server::start(self.name(), self.namespace(), &state.addresses, &state.ports);
            state.server =
                Some(server.with_context(|| format!("cannot start the listeners of {}", self.name()))?);
        }
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "a test that asks for an address that it took away is wrong")]
    fn first(&self, of_family: fn(&IpAddr) -> bool) -> IpAddr {
        self.addresses().into_iter().find(of_family).expect("the endpoint has an address of this family")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.0.name).finish()
    }
}
