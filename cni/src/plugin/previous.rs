//! The result of the plugins that ran before this one.

use std::net::IpAddr;

use podfence_cni::protocol::{Attachment, PodReference, Sandbox};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::Error;

/// What of it says where a pod is.
#[derive(Debug, Deserialize)]
pub(crate) struct Previous {
    interfaces: Option<Vec<Interface>>,
    ips: Option<Vec<Address>>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Address {
    /// With the length of its prefix.
    address: String,
    /// The place of its interface in the list.
    interface: Option<i64>,
}

impl Previous {
    pub(crate) fn read(result: &RawValue) -> Result<Self, Error> {
        serde_json::from_str(result.get())
            .map_err(|error| Error::Configuration(format!("prevResult: {error}")))
    }

    /// The pod's network.
    pub(crate) fn sandbox(&self, attachment: Attachment, pod: PodReference) -> Result<Sandbox, Error> {
        let addresses = self.addresses(&attachment.interface)?;
        if addresses.is_empty() {
            let problem =
                format!("prevResult has no address of {}: nothing can be enforced", attachment.interface);
            return Err(Error::Configuration(problem));
        }
        Ok(Sandbox { attachment, pod, addresses })
    }

    fn interfaces(&self) -> &[Interface] {
        self.interfaces.as_deref().unwrap_or_default()
    }

    /// The addresses of an interface in the sandbox: all but those of others.
    fn addresses(&self, interface: &str) -> Result<Vec<IpAddr>, Error> {
        let of_another = |address: &&Address| {
            let place = address.interface.and_then(|place| usize::try_from(place).ok());
            let owner = place.and_then(|place| self.interfaces().get(place));
            owner.is_some_and(|owner| owner.name != interface)
        };
        let addresses = self.ips.iter().flatten().filter(|address| !of_another(address));
        addresses.map(Address::parse).collect()
    }
}

impl Address {
    fn parse(&self) -> Result<IpAddr, Error> {
        let address = self.address.split_once('/').map_or(self.address.as_str(), |(address, _)| address);
        let problem = || Error::Configuration(format!("prevResult: `{}` is no address", self.address));
        address.parse().map_err(|_| problem())
    }
}

/// The result as it was, with the version that it must have if it names none.
pub(crate) fn printed(result: &RawValue, version: &str) -> String {
    let text = result.get();
    let names_version = serde_json::from_str::<Versioned>(text).is_ok_and(|result| result.version.is_some());
    match text.strip_prefix('{') {
        Some(rest) if !names_version => {
            let comma = if rest.trim_start() == "}" { "" } else { "," };
            format!("{{\"cniVersion\":\"{version}\"{comma}{rest}\n")
        }
        _ => format!("{text}\n"),
    }
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "cniVersion")]
    version: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;
    use serde_json::{Value, json};

    use super::*;

    /// The addresses of the pod's interface `eth0`.
    fn found(result: &Value) -> String {
        let attachment = Attachment { container: "c".into(), interface: "eth0".into() };
        let pod = PodReference { namespace: "n".into(), name: "p".into(), uid: None };
        let read = Previous::read(&to_raw_value(result).unwrap());
        match read.and_then(|previous| previous.sandbox(attachment, pod)) {
            Ok(sandbox) => sandbox.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_result_says_which_addresses_the_pod_has() {
        let bridge = json!({"name": "cni0", "mac": "02:00:00:00:00:01"});
        let veth = json!({"name": "veth1", "mac": "02:00:00:00:00:02"});
        let inside = json!({"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/n"});
        let both = [
            json!({"address": "10.1.0.5/16", "interface": 2}),
            json!({"address": "fd00::5/64", "interface": 2}),
        ];
        let loose = json!({"address": "10.1.0.5/32"});
        for (what, result, expected) in [
            ("bridge", json!({"interfaces": [bridge, veth, inside], "ips": both}), "10.1.0.5,fd00::5"),
            ("no interface of the pod", json!({"interfaces": [veth], "ips": [loose]}), "10.1.0.5"),
            ("no interfaces", json!({"ips": [loose]}), "10.1.0.5"),
            (
                "addresses of others",
                json!({"interfaces": [{"name": "lo", "sandbox": "/n"}, bridge, inside],
                       "ips": [{"address": "127.0.0.1/8", "interface": 0}, {"address": "10.1.0.1/16", "interface": 1},
                               {"address": "10.1.0.5/16", "interface": 2}, {"address": "10.1.0.6/16", "interface": -1}]}),
                "10.1.0.5,10.1.0.6",
            ),
            (
                "no address",
                json!({"interfaces": [inside], "ips": []}),
                "prevResult has no address of eth0: nothing can be enforced",
            ),
            (
                "no such address",
                json!({"ips": [{"address": "web/24"}]}),
                "prevResult: `web/24` is no address",
            ),
            (
                "another shape",
                json!({"ips": "10.1.0.5"}),
                "prevResult: invalid type: string \"10.1.0.5\", expected a sequence at line 1 column 17",
            ),
        ] {
            assert_eq!(found(&result), expected, "{what}");
        }
    }

    #[test]
    fn the_result_is_passed_on_as_it_is() {
        for (result, expected) in [
            (r#"{"cniVersion": "1.0.0", "x": 1e3 }"#, r#"{"cniVersion": "1.0.0", "x": 1e3 }"#),
            (r#"{ "ips": [ ] }"#, r#"{"cniVersion":"0.4.0", "ips": [ ] }"#),
            ("{ }", r#"{"cniVersion":"0.4.0" }"#),
        ] {
            let raw = RawValue::from_string(result.into()).unwrap();
            assert_eq!(printed(&raw, "0.4.0"), format!("{expected}\n"));
        }
    }
}
