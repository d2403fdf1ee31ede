//! What the runtime says in variables of the environment.

use podfence_cni::protocol::{Attachment, PodReference};

use super::error::Error;

/// What the runtime asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Add(Target),
    Del(Attachment),
    Check(Target),
    Gc,
    Status,
    Version,
}

/// The interface that is added or checked, and whose it is.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) attachment: Attachment,
    /// `None`: what runs there is no pod of Kubernetes.
    pub(crate) pod: Option<PodReference>,
}

impl Command {
    /// What these variables ask for.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let variables = Variables(variable);
        match variables.get(COMMAND)?.as_str() {
            "ADD" => Ok(Self::Add(variables.target()?)),
            "DEL" => Ok(Self::Del(variables.attachment()?)),
            "CHECK" => Ok(Self::Check(variables.target()?)),
            "GC" => Ok(Self::Gc),
            "STATUS" => Ok(Self::Status),
            "VERSION" => Ok(Self::Version),
            other => Err(invalid(COMMAND, format!("is `{other}`, which is no command of CNI"))),
        }
    }
}

const COMMAND: &str = "CNI_COMMAND";
const CONTAINER: &str = "CNI_CONTAINERID";
const INTERFACE: &str = "CNI_IFNAME";
const ARGUMENTS: &str = "CNI_ARGS";

/// The longest name that the kernel gives an interface.
const LONGEST_INTERFACE: usize = 15;

struct Variables<F>(F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn get(&self, name: &'static str) -> Result<String, Error> {
        let value = (self.0)(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| invalid(name, "is not set: this program is run by the container runtime".into()))
    }

    fn target(&self) -> Result<Target, Error> {
        // The interface is there already; that the runtime knows where is part of what it has to say.
        self.get("CNI_NETNS")?;
        let arguments = (self.0)(ARGUMENTS).unwrap_or_default();
        Ok(Target { attachment: self.attachment()?, pod: pod(&arguments)? })
    }

    fn attachment(&self) -> Result<Attachment, Error> {
        let (container, interface) = (self.get(CONTAINER)?, self.get(INTERFACE)?);
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
        if !container.starts_with(|first: char| first.is_ascii_alphanumeric())
            || !container.chars().all(allowed)
        {
            return Err(invalid(CONTAINER, format!("is `{container}`, which is no identifier")));
        }
        let forbidden = |letter: char| letter == '/' || letter == ':' || letter.is_whitespace();
        let special = interface == "." || interface == "..";
        if interface.len() > LONGEST_INTERFACE || special || interface.contains(forbidden) {
            return Err(invalid(INTERFACE, format!("is `{interface}`, which is no name of an interface")));
        }
        Ok(Attachment { container, interface })
    }
}

/// The pod that is named in pairs such as `K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop`, if one is.
fn pod(arguments: &str) -> Result<Option<PodReference>, Error> {
    let (mut namespace, mut name, mut uid) = (None, None, None);
    for pair in arguments.split(';').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| invalid(ARGUMENTS, format!("has `{pair}`, which is no pair")))?;
        let place = match key {
            "K8S_POD_NAMESPACE" => &mut namespace,
            "K8S_POD_NAME" => &mut name,
            "K8S_POD_UID" => &mut uid,
            _ => continue,
        };
        *place = Some(value.to_owned()).filter(|value| !value.is_empty());
    }
    match (namespace, name) {
        (Some(namespace), Some(name)) => Ok(Some(PodReference { namespace, name, uid })),
        (None, None) => Ok(None),
        _ => Err(invalid(ARGUMENTS, "has only one of K8S_POD_NAMESPACE and K8S_POD_NAME".into())),
    }
}

fn invalid(variable: &'static str, problem: String) -> Error {
    Error::Environment { variable, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `NAME=VALUE` separated by spaces, beside those of a pod's ADD that are not named.
    fn read(changes: &str) -> String {
        let defaults = "CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS=/n CNI_ARGS=";
        let find = |text: &str, name: &str| {
            let value = text.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.map(str::to_owned)
        };
        match Command::read(|name| find(changes, name).or_else(|| find(defaults, name))) {
            Ok(Command::Add(Target { attachment, pod: Some(pod) })) => {
                format!("{attachment} of {pod} {}", pod.uid.as_deref().unwrap_or("?"))
            }
            Ok(command) => format!("{command:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn variables_name_the_command_and_the_pod() {
        for (changes, expected) in [
            (
                "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u",
                "c1/eth0 of shop/web u",
            ),
            ("CNI_ARGS=K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=", "c1/eth0 of shop/web ?"),
            ("CNI_ARGS=K8S_POD_NAME=web", "CNI_ARGS has only one of K8S_POD_NAMESPACE and K8S_POD_NAME"),
            ("CNI_ARGS=nonsense", "CNI_ARGS has `nonsense`, which is no pair"),
            ("CNI_COMMAND=", "CNI_COMMAND is not set: this program is run by the container runtime"),
            ("CNI_COMMAND=add", "CNI_COMMAND is `add`, which is no command of CNI"),
            ("CNI_COMMAND=GC CNI_CONTAINERID= CNI_IFNAME=", "Gc"),
            ("CNI_CONTAINERID=", "CNI_CONTAINERID is not set: this program is run by the container runtime"),
            ("CNI_CONTAINERID=../c1", "CNI_CONTAINERID is `../c1`, which is no identifier"),
            ("CNI_IFNAME=a/b", "CNI_IFNAME is `a/b`, which is no name of an interface"),
            (
                "CNI_IFNAME=abcdefghijklmnop",
                "CNI_IFNAME is `abcdefghijklmnop`, which is no name of an interface",
            ),
            ("CNI_NETNS=", "CNI_NETNS is not set: this program is run by the container runtime"),
            ("CNI_COMMAND=DEL CNI_NETNS=", "Del(Attachment { container: \"c1\", interface: \"eth0\" })"),
        ] {
            assert_eq!(read(changes), expected, "{changes}");
        }
    }
}
