//! An end of a connection: `--from` and `--to` of `podfence explain`.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Context, bail};
use ipnet::IpNet;
use policy_compiler::manifest::{ip_address, ip_block, label_selector};
use policy_compiler::model::{Labels, ObjectName, Operator, Pod, PortNumber, Protocol, TargetPort};

use super::port::{BadPort, PortQuery};

/// The namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// An END.
#[derive(Debug, Clone)]
pub(crate) struct EndQuery {
    /// As it was written.
    pub(crate) text: String,
    pub(crate) end: Written,
    /// The port that was written behind it.
    pub(crate) port: Option<PortQuery>,
}

/// Whom an END names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    Address(IpAddr),
    Block(IpNet),
    /// A pod by its labels, and its namespace if that is said.
    Labels {
        namespace: Option<String>,
        labels: Labels,
    },
    /// What stands between the slashes: a name, with its namespace or kind or both before it.
    Name(Vec<String>),
}

impl FromStr for EndQuery {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = text.split_once("://").map(|(scheme, rest)| (scheme, host_of_url(rest)));
        let (end, port) = match url {
            Some((scheme, host)) => {
                let (host, port) = split_port(host)?;
                (host, port.or_else(|| default_port(scheme)))
            }
            None => split_port(text)?,
        };
        let end = Written::parse(end.trim_end_matches('.'))?;
        Ok(Self { text: text.to_owned(), end, port })
    }
}

impl Written {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Some(address) = ip_address(bare) {
            return Ok(Self::Address(address));
        }
        if let Some(block) = ip_block(text) {
            let is_single = block.prefix_len() == block.max_prefix_len();
            return Ok(if is_single { Self::Address(block.addr()) } else { Self::Block(block) });
        }
        if text.contains('=') {
            return labels(text);
        }
        if let Some((address, _)) = text.split_once('/').filter(|(before, _)| ip_address(before).is_some()) {
            bail!(
                "`{text}` is no block: the length of {address} must be 0 to {}",
                if address.contains(':') { 128 } else { 32 }
            )
        }
        let parts: Vec<_> = text.split('/').map(str::to_owned).collect();
        if parts.len() > 3 || !parts.iter().all(|part| is_name(part)) {
            bail!(
                "use NAMESPACE/NAME, KIND/NAME, KIND/NAMESPACE/NAME, an address, a CIDR or ns=NAMESPACE,LABEL=VALUE"
            )
        }
        Ok(Self::Name(parts))
    }
}

/// Reads `ns=NAMESPACE,LABEL=VALUE,…`.
fn labels(text: &str) -> anyhow::Result<Written> {
    let mut namespace = None;
    let mut labels = Labels::new();
    for requirement in label_selector(text)?.requirements {
        let value = match requirement.operator {
            Operator::In(values) if values.len() == 1 => values.into_iter().next(),
            _ => None,
        };
        let key = requirement.key;
        let value = value.with_context(|| format!("a pod has single labels: write {key}=VALUE"))?;
        match key.as_str() {
            "ns" | "namespace" => namespace = Some(value),
            _ => drop(labels.insert(key, value)),
        }
    }
    Ok(Written::Labels { namespace, labels })
}

impl EndQuery {
    /// The pod that an END describes by its labels. It need not be in the manifests.
    pub(crate) fn described(&self, namespace: Option<&str>) -> Option<Pod> {
        let Written::Labels { namespace: said, labels } = &self.end else { return None };
        let namespace = said.as_deref().or(namespace).unwrap_or(DEFAULT_NAMESPACE);
        let text: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let name = if text.is_empty() { "(no labels)".to_owned() } else { text.join(",") };
        Some(Pod {
            labels: labels.clone(),
            // Two pods may have the labels, so it is no pod that always reaches itself.
            workload: Some("the labels".into()),
            ..Pod::new(ObjectName::new(namespace, name))
        })
    }
}

/// Host and port of a URL without its scheme.
fn host_of_url(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit('@').next().unwrap_or(authority)
}

fn default_port(scheme: &str) -> Option<PortQuery> {
    let number = match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        _ => return None,
    };
    let port = TargetPort::Number(PortNumber::new(number)?);
    Some(PortQuery { protocol: Protocol::Tcp, port })
}

/// What stands before a port, and the port: `web:80`, `web:53/UDP`, `[fd00::1]:80`. Other colons are those of an IPv6
/// address.
fn split_port(text: &str) -> Result<(&str, Option<PortQuery>), BadPort> {
    match text.rsplit_once(':') {
        Some((before, port)) if !before.contains(':') || before.ends_with(']') => {
            Ok((before, Some(port.parse()?)))
        }
        _ => Ok((text, None)),
    }
}

/// Whether a text could be a part of a name of an object or of its kind.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(parts: &[&str]) -> Written {
        Written::Name(parts.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn ends_are_read_as_people_write_them() {
        let labels = |namespace: Option<&str>, labels: &[(&str, &str)]| Written::Labels {
            namespace: namespace.map(str::to_owned),
            labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        };
        let address = |text: &str| Written::Address(text.parse().unwrap());
        let block = |text: &str| Written::Block(text.parse().unwrap());
        let cases = [
            ("web", name(&["web"]), None),
            ("shop/web", name(&["shop", "web"]), None),
            ("deploy/shop/web", name(&["deploy", "shop", "web"]), None),
            ("db:5432", name(&["db"]), Some("5432/TCP")),
            ("svc/shop/dns:53/UDP", name(&["svc", "shop", "dns"]), Some("53/UDP")),
            ("shop/web:http", name(&["shop", "web"]), Some("http/TCP")),
            ("db.shop.svc.cluster.local.", name(&["db.shop.svc.cluster.local"]), None),
            ("http://web.shop/index.html?x=1", name(&["web.shop"]), Some("80/TCP")),
            ("https://user:secret@web.shop:8443/", name(&["web.shop"]), Some("8443/TCP")),
            ("postgres://db.shop:5432/orders", name(&["db.shop"]), Some("5432/TCP")),
            ("postgres://db.shop/orders", name(&["db.shop"]), None),
            ("10.0.0.1", address("10.0.0.1"), None),
            ("10.0.0.1:80", address("10.0.0.1"), Some("80/TCP")),
            ("::ffff:10.0.0.1", address("10.0.0.1"), None),
            ("fd00::1", address("fd00::1"), None),
            ("[fd00::1]", address("fd00::1"), None),
            ("[fd00::1]:80", address("fd00::1"), Some("80/TCP")),
            ("http://[fd00::1]/", address("fd00::1"), Some("80/TCP")),
            ("10.0.0.1/32", address("10.0.0.1"), None),
            ("10.1.2.3/8", block("10.0.0.0/8"), None),
            ("::ffff:10.0.0.0/104", block("10.0.0.0/8"), None),
            ("fd00::/8", block("fd00::/8"), None),
            ("app=web", labels(None, &[("app", "web")]), None),
            ("ns=shop,app=web", labels(Some("shop"), &[("app", "web")]), None),
            ("namespace=shop", labels(Some("shop"), &[]), None),
            (
                "ns=ingress-nginx,app.kubernetes.io/name=ingress-nginx:80",
                labels(Some("ingress-nginx"), &[("app.kubernetes.io/name", "ingress-nginx")]),
                Some("80/TCP"),
            ),
        ];
        for (text, end, port) in cases {
            let query: EndQuery = text.parse().unwrap();
            assert_eq!(
                (query.end, query.port.map(|port| port.to_string()).as_deref()),
                (end, port),
                "{text}"
            );
        }
        for text in [
            "",
            "/web",
            "shop/",
            "a/b/c/d",
            "app!=web",
            "ns=shop,app in (a,b)",
            "web:0",
            "web:99999",
            ":80",
            "http://[::1",
            "://",
            "10.0.0.0/33",
            "fd00::/129",
            "web db",
            "näme",
        ] {
            assert!(text.parse::<EndQuery>().is_err(), "{text}");
        }
    }
}
