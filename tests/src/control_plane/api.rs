//! Objects as JSON, written to and read from the API server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::credentials::{ADMINISTRATOR_TOKEN, Credentials};
use crate::namespace::Namespace;

/// The longest that one request may take.
const BOUND: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// A client with every right, for objects that have `apiVersion`, `kind` and `metadata`. Clones share their
/// connections; they may be used from several threads.
#[derive(Debug, Clone)]
pub struct Api {
    namespace: Namespace,
    server: String,
    agent: Agent,
}

impl Api {
    pub(super) fn new(namespace: Namespace, server: String, credentials: &Credentials) -> Self {
        let authority = Certificate::from_pem(credentials.authority_pem().as_bytes());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&authority.into_iter().collect::<Vec<_>>()))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(BOUND))
            .http_status_as_error(false)
            .build()
            .new_agent();
        Self { namespace, server, agent }
    }

    /// Creates an object.
    ///
    /// # Errors
    /// The API server does not answer, or refuses it.
    pub fn create(&self, object: &Value) -> Result<()> {
        self.send(&Method::POST, &collection(object)?, JSON, object).map(drop)
    }

    /// A token of a service account, as its pods are given one.
    ///
    /// # Errors
    /// The API server does not answer, or there is no such account.
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"});
        let answer = self.send(&Method::POST, &path, JSON, &request)?;
        Ok(answer["status"]["token"].as_str().with_context(|| format!("no token: {answer}"))?.to_owned())
    }

    /// Creates an object, or gives one that is there these fields (server-side apply).
    ///
    /// # Errors
    /// The API server does not answer, or refuses it.
    pub fn apply(&self, object: &Value) -> Result<()> {
        let path = format!("{}?fieldManager=lab&force=true", item(object)?);
        self.send(&Method::PATCH, &path, APPLY_PATCH, object).map(drop)
    }

    /// Writes an object as it is to be now, its status too if it has one.
    ///
    /// # Errors
    /// The API server does not answer, or refuses it.
    pub fn put(&self, object: &Value) -> Result<()> {
        // A node has several addresses of one type, which no applied object may have.
        let mut written = object.clone();
        written.as_object_mut().context("no object")?.remove("status");
        self.apply(&written)?;
        if object["status"].is_null() { Ok(()) } else { self.patch_status(object) }
    }

    /// Gives an object that is there these fields; `null` takes one away (JSON merge patch).
    ///
    /// # Errors
    /// The API server does not answer, or refuses it, or there is no such object.
    pub fn patch(&self, object: &Value) -> Result<()> {
        self.send(&Method::PATCH, &item(object)?, MERGE_PATCH, object).map(drop)
    }

    /// Gives the `status` of an object these fields.
    ///
    /// # Errors
    /// The API server does not answer, or refuses it, or there is no such object.
    pub fn patch_status(&self, object: &Value) -> Result<()> {
        self.send(&Method::PATCH, &(item(object)? + "/status"), MERGE_PATCH, object).map(drop)
    }

    /// Deletes an object at once. Of a namespace nothing must be left.
    ///
    /// # Errors
    /// The API server does not answer, or there is no such object.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let path = item(object)?;
        self.send(&Method::DELETE, &path, JSON, &json!({"gracePeriodSeconds": 0}))?;
        if object["kind"] == "Namespace" {
            let mut ended = object.clone();
            ended["spec"] = json!({"finalizers": []});
            self.send(&Method::PUT, &(path + "/finalize"), JSON, &ended)?;
        }
        Ok(())
    }

    /// What is at a path, such as `/api/v1/pods`; a text where it is not JSON.
    ///
    /// # Errors
    /// The API server does not answer, or has nothing there.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.send(&Method::GET, path, JSON, &Value::Null)
    }

    /// The address of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    /// Sends somebody else's request.
    pub(super) fn forward(&self, request: Request<Vec<u8>>) -> Result<Response<Body>> {
        self.namespace.run(|| Ok(self.agent.run(request)?))
    }

    fn send(&self, method: &Method, path: &str, content_type: &str, body: &Value) -> Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(self.url(path))
            .header("authorization", format!("Bearer {ADMINISTRATOR_TOKEN}"))
            .header("content-type", content_type)
            .body(body.to_string())?;
        let request_line = format!("{method} {path}");
        // A connection is made in the namespace of the thread that makes it.
        let (status, text) = self
            .namespace
            .run(|| {
                let mut answer = self.agent.run(request)?;
                Ok((answer.status(), answer.body_mut().read_to_string()?))
            })
            .with_context(|| request_line.clone())?;
        if !status.is_success() {
            bail!("{request_line}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

/// The path of all objects of an object's kind, in its namespace if it has one.
fn collection(object: &Value) -> Result<String> {
    let field = |value: &Value, name: &str| {
        value.as_str().map(str::to_owned).with_context(|| format!("an object without {name}: {object}"))
    };
    let version = field(&object["apiVersion"], "apiVersion")?;
    let kind = field(&object["kind"], "kind")?.to_lowercase();
    let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
    let root = if version.contains('/') { "apis" } else { "api" };
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}"),
        None => format!("/{root}/{version}/{plural}"),
    })
}

/// The path of an object.
fn item(object: &Value) -> Result<String> {
    let name = object["metadata"]["name"].as_str().with_context(|| format!("no name: {object}"))?;
    Ok(format!("{}/{name}", collection(object)?))
}
