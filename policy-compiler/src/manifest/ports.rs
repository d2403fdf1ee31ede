//! Protocols and ports, wherever they stand.

use super::fields::{Field, Mapping, Read};
use super::names::is_port_name;
use super::quoted::quoted;
use crate::model::{PortNumber, Protocol, TargetPort};

const PORT: &str = "a number from 1 to 65535";
const PORT_OR_NAME: &str = "a number from 1 to 65535 or the name of a port";

/// `protocol`, TCP where it is left out.
pub(super) fn protocol(object: &Mapping<'_>) -> Read<Protocol> {
    let protocol = object.optional("protocol", |field| {
        let text = field.text()?;
        Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == text)
            .ok_or_else(|| field.problem(format!("{} is no protocol: use TCP, UDP or SCTP", quoted(text))))
    });
    Ok(protocol?.unwrap_or(Protocol::Tcp))
}

/// A field that holds a port's number.
pub(super) fn port_number(field: &Field<'_>) -> Read<PortNumber> {
    in_range(field, field.integer(PORT)?)
}

/// A field that holds a port's number, or 0 where there is none.
pub(super) fn port_number_if_any(field: &Field<'_>) -> Read<Option<PortNumber>> {
    match field.integer(PORT)? {
        0 => Ok(None),
        number => in_range(field, number).map(Some),
    }
}

/// A field that holds a port's number or its name (`IntOrString`).
pub(super) fn port_or_name(field: &Field<'_>) -> Read<TargetPort> {
    match field.integer_or_text(PORT_OR_NAME)? {
        Ok(number) => in_range(field, number).map(TargetPort::Number),
        Err(name) if is_port_name(name) => Ok(TargetPort::Name(name.to_owned())),
        Err(name) if name.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => {
            Err(field
                .problem(format!("a number in quotes is taken for a name: write {} without", quoted(name))))
        }
        Err(name) => Err(field.problem(format!(
            "{} is no port name: at most 15 lower-case letters, digits and single `-`, at least one letter, \
             no `-` at the ends",
            quoted(name)
        ))),
    }
}

fn in_range(field: &Field<'_>, number: i64) -> Read<PortNumber> {
    u16::try_from(number)
        .ok()
        .and_then(PortNumber::new)
        .ok_or_else(|| field.problem(format!("{number} is no port: use {PORT}")))
}
