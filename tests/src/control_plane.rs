//! A real API server, with etcd behind it.
//!
//! There is no controller manager, no scheduler and no kubelet: whoever uses it plays them. It writes pods with
//! `spec.nodeName`, their `status`, and ends namespaces.

mod api;
mod credentials;
mod daemon;
mod proxy;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use api::Api;
pub use credentials::User;
pub use daemon::Daemon;
pub use proxy::{Proxy, Treatment};

use crate::lab::Lab;
use crate::namespace::Namespace;
use crate::programs::{self, Program, is_there};
use credentials::Credentials;

/// Where the API server listens.
const SECURE_PORT: u16 = 6443;

/// Where etcd listens, in the control plane's own namespace.
const ETCD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2379);
const ETCD_PEERS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2380);

/// The longest that the two may take until they serve.
const START_BOUND: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// A control plane. It ends when dropped, and with the thread that started it.
#[derive(Debug)]
pub struct ControlPlane {
    /// The API server's process.
    pub api_server: Daemon,
    /// The database's process.
    pub etcd: Daemon,
    api: Api,
    credentials: Credentials,
    server: String,
    folder: TempDir,
}

impl ControlPlane {
    /// Whether this machine can run one, or one sentence that says what is missing.
    ///
    /// # Errors
    /// The sentence.
    pub fn available() -> Result<(), String> {
        [programs::ETCD, programs::KUBE_APISERVER].iter().try_for_each(Program::available)
    }

    /// Starts one outside the nodes of a lab; `None`, and a word about it, where none can be had.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn beside(lab: &Lab) -> Result<Option<Self>> {
        let world = lab.world();
        is_there(Self::available()).then(|| Self::start(world.namespace(), world.ipv4())).transpose()
    }

    /// Starts etcd and an API server in a namespace that has `address` and a loopback device that is up. They
    /// serve when this returns, and the agents' [`User`]s may read what an agent reads.
    ///
    /// The programs come from `KUBEBUILDER_ASSETS` or `PATH`; where they are not, they are built, which needs
    /// Go and takes some minutes, once.
    ///
    /// # Errors
    /// The programs can neither be found nor built, or do not serve within a minute; the error holds their
    /// logs.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let [etcd_path, api_server_path] = [programs::ETCD.path()?, programs::KUBE_APISERVER.path()?];
        let folder = tempfile::Builder::new().prefix("podfence-control-plane-").tempdir()?;
        let credentials = Credentials::write(folder.path(), address)?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let etcd = vec![
            format!("--data-dir={}", at("etcd")),
            format!("--listen-client-urls=http://{ETCD}"),
            format!("--advertise-client-urls=http://{ETCD}"),
            format!("--listen-peer-urls=http://{ETCD_PEERS}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
        ];
        let mut api_server = vec![
            format!("--etcd-servers=http://{ETCD}"),
            format!("--bind-address={address}"),
            format!("--advertise-address={address}"),
            format!("--secure-port={SECURE_PORT}"),
            format!("--cert-dir={}", at("generated")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!(
                "--service-cluster-ip-range={}",
                if address.is_ipv4() { "10.96.0.0/16" } else { "fd96::/112" }
            ),
            // A namespace gets its service account from the controller manager.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        api_server.extend(credentials.api_server_arguments());
        let server = format!("https://{}", SocketAddr::new(address, SECURE_PORT));
        let api = Api::new(namespace.clone(), server.clone(), &credentials);
        let mut plane = Self {
            etcd: Daemon::start(namespace, &etcd_path, etcd, folder.path())?,
            api_server: Daemon::start(namespace, &api_server_path, api_server, folder.path())?,
            api,
            credentials,
            server,
            folder,
        };
        plane.wait_ready()?;
        plane.admit_agents()?;
        Ok(plane)
    }

    /// Waits until the API server serves, after one of the two has been started again.
    ///
    /// # Errors
    /// One of them has ended, or it does not serve within a minute; the error holds their logs.
    pub fn wait_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            match self.api.get("/readyz") {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > START_BOUND => {
                    bail!("the API server does not serve: {error:#}\n{}", self.api_server.log()?)
                }
                Err(_) => std::thread::sleep(INTERVAL),
            }
            self.etcd.check()?;
            self.api_server.check()?;
        }
    }

    /// Objects, with every right.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The path of a kubeconfig with which a user reaches the API server.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig(&self, user: User) -> Result<PathBuf> {
        self.write_kubeconfig(&format!("{user:?}"), &self.server, &self.credentials.of(user))
    }

    /// Starts a proxy for the agents of a namespace, which changes objects on their way: those of every list and every
    /// watch.
    ///
    /// # Errors
    /// It cannot listen there.
    pub fn proxy(
        &self,
        clients: &Namespace,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Result<Proxy> {
        Proxy::start(clients, self.api.clone(), change)
    }

    /// The path of a kubeconfig with which an agent reaches the API server through a proxy.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig_by(&self, proxy: &Proxy) -> Result<PathBuf> {
        self.write_kubeconfig("proxy", &proxy.server(), &self.credentials.of(User::Agent))
    }

    /// The path of a kubeconfig with the token of a service account, as its pods are given one.
    ///
    /// # Errors
    /// There is no such account, or the file cannot be written.
    pub fn kubeconfig_of_account(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self.api.token(namespace, account)?;
        self.write_kubeconfig(&format!("{namespace}-{account}"), &self.server, &json!({"token": token}))
    }

    fn write_kubeconfig(&self, name: &str, server: &str, user: &Value) -> Result<PathBuf> {
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": server,
                "certificate-authority": self.credentials.authority(),
            }}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "user"}}],
        });
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Lets agents read what they follow and write events, and nothing else.
    fn admit_agents(&self) -> Result<()> {
        const NAME: &str = "lab:agents";
        let verbs = ["get", "list", "watch"];
        self.api.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": NAME},
            "rules": [
                {"apiGroups": [""], "resources": ["namespaces", "nodes", "pods"], "verbs": verbs},
                {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
                {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": verbs},
                {
                    "apiGroups": ["policy.networking.k8s.io"],
                    "resources": ["clusternetworkpolicies"],
                    "verbs": verbs,
                },
                {
                    "apiGroups": ["apiextensions.k8s.io"],
                    "resources": ["customresourcedefinitions"],
                    "resourceNames": ["clusternetworkpolicies.policy.networking.k8s.io"],
                    "verbs": verbs,
                },
            ],
        }))?;
        self.api.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": credentials::AGENT},
            ],
        }))
    }
}
