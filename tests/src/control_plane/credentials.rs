//! Certificates, keys and tokens of a control plane.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};

/// The name by which the API server knows an agent.
pub(super) const AGENT: &str = "podfence";

/// Whoever shows it may do everything.
pub(super) const ADMINISTRATOR_TOKEN: &str = "administrator";
const AGENT_TOKEN: &str = "agent";
const STRANGER_TOKEN: &str = "stranger";

/// Who speaks to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Somebody who may do everything.
    Administrator,
    /// An agent, which shows a bearer token.
    Agent,
    /// The same, which shows a client certificate.
    AgentWithCertificate,
    /// Somebody who has no rights.
    Stranger,
}

/// The files, each in the same folder.
#[derive(Debug)]
pub(super) struct Credentials {
    folder: PathBuf,
    /// The certificate of the authority that has signed the others, PEM.
    authority: String,
}

impl Credentials {
    /// Makes all of them for an API server at `address`.
    pub(super) fn write(folder: &Path, address: IpAddr) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "podfence lab");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let mut server = CertificateParams::default();
        server.subject_alt_names.push(SanType::IpAddress(address));
        let mut agent = CertificateParams::default();
        agent.distinguished_name.push(DnType::CommonName, AGENT);
        for (name, params) in [("server", server), ("agent", agent)] {
            let key = KeyPair::generate()?;
            fs::write(folder.join(format!("{name}.crt")), params.signed_by(&key, &authority)?.pem())?;
            fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        }
        let service_accounts = KeyPair::generate()?;
        fs::write(folder.join("service-accounts.key"), service_accounts.serialize_pem())?;
        fs::write(folder.join("service-accounts.pub"), service_accounts.public_key_pem())?;
        fs::write(folder.join("authority.crt"), authority.pem())?;
        let tokens = format!(
            "{ADMINISTRATOR_TOKEN},administrator,1,system:masters\n{AGENT_TOKEN},{AGENT},2\n\
             {STRANGER_TOKEN},stranger,3\n"
        );
        fs::write(folder.join("tokens.csv"), tokens)?;
        Ok(Self { folder: folder.to_owned(), authority: authority.pem() })
    }

    pub(super) fn api_server_arguments(&self) -> Vec<String> {
        [
            ("tls-cert-file", "server.crt"),
            ("tls-private-key-file", "server.key"),
            ("client-ca-file", "authority.crt"),
            ("token-auth-file", "tokens.csv"),
            ("service-account-key-file", "service-accounts.pub"),
            ("service-account-signing-key-file", "service-accounts.key"),
        ]
        .map(|(argument, file)| format!("--{argument}={}", self.path(file)))
        .to_vec()
    }

    /// The path of the authority's certificate.
    pub(super) fn authority(&self) -> String {
        self.path("authority.crt")
    }

    /// The authority's certificate, PEM.
    pub(super) fn authority_pem(&self) -> &str {
        &self.authority
    }

    /// The `user` of a kubeconfig.
    pub(super) fn of(&self, user: User) -> Value {
        match user {
            User::Administrator => json!({"token": ADMINISTRATOR_TOKEN}),
            User::Agent => json!({"token": AGENT_TOKEN}),
            User::AgentWithCertificate => {
                json!({"client-certificate": self.path("agent.crt"), "client-key": self.path("agent.key")})
            }
            User::Stranger => json!({"token": STRANGER_TOKEN}),
        }
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }
}
