//! Reads instructions as the kernel lists them.

use policy_compiler::ruleset::{ChainId, SetId, Verdict};

use super::Expression;
use crate::kernel::uapi;
use podfence_cni::netlink::Attributes;

/// Reads an instruction as the kernel lists it (`NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`); `None` where it says
/// anything that podfence never says.
pub(in crate::kernel) fn parse(name: &str, attributes: Attributes<'_>) -> Option<Expression> {
    let number = |kind| attributes.number(kind);
    // Of a register that is read and written in place.
    let in_place = |source, destination| {
        let register = number(source)?;
        (number(destination)? == register).then_some(register)
    };
    let (highest, expression) = match name {
        "meta" => (2, Expression::Meta { register: number(1)?, key: number(2)? }),
        "payload" => {
            let (base, offset, length) = (number(2)?, number(3)?, number(4)?);
            (4, Expression::Payload { register: number(1)?, base, offset, length })
        }
        "ct" => (2, Expression::Conntrack { register: number(1)?, key: number(2)? }),
        "fib" => (3, Expression::Fib { register: number(1)?, result: number(2)?, flags: number(3)? }),
        "bitwise" if number(6).unwrap_or(0) == 0 => {
            let (mask, xor) = (value(attributes, 4)?, value(attributes, 5)?);
            (6, Expression::Bitwise { register: in_place(1, 2)?, mask, xor })
        }
        "byteorder" => {
            let (operation, length, size) = (number(3)?, number(4)?, number(5)?);
            (5, Expression::Byteorder { register: in_place(1, 2)?, operation, length, size })
        }
        "cmp" => {
            let value = value(attributes, 3)?;
            (3, Expression::Compare { register: number(1)?, operation: number(2)?, value })
        }
        "lookup" if number(5).unwrap_or(0) == 0 => {
            let (set, destination) = (SetId::read(attributes.text(1)?), number(3));
            let verdict = destination == Some(uapi::NFT_REG_VERDICT);
            if destination.is_some() && !verdict {
                return None;
            }
            (5, Expression::Lookup { register: number(2)?, set, verdict })
        }
        "dynset" if number(3)? == uapi::NFT_DYNSET_OP_UPDATE && number(9).unwrap_or(0) == 0 => {
            let set = SetId::read(attributes.text(1)?);
            let milliseconds = attributes.number64(6)?;
            (9, Expression::Expect { register: number(4)?, set, milliseconds })
        }
        // By packets (type 0) and not inverted (no flags).
        "limit" if number(4)? == 0 && number(5).unwrap_or(0) == 0 => {
            let (rate, unit) = (attributes.number64(1)?, attributes.number64(2)?);
            (6, Expression::Limit { rate, unit, burst: number(3)? })
        }
        "log" => {
            let group = u16::from_be_bytes(attributes.get(1)?.try_into().ok()?);
            (3, Expression::Log { prefix: attributes.text(2)?.to_owned(), group, snap_length: number(3)? })
        }
        "counter" => (3, Expression::Counter),
        "immediate" if number(1)? == uapi::NFT_REG_VERDICT => {
            (2, Expression::Verdict(verdict(attributes.nested(2)?)?))
        }
        _ => return None,
    };
    attributes.iter().all(|attribute| attribute.kind <= highest).then_some(expression)
}

fn value(attributes: Attributes<'_>, kind: u16) -> Option<Vec<u8>> {
    attributes.nested(kind)?.get(uapi::NFTA_DATA_VALUE).map(<[u8]>::to_vec)
}

/// A verdict as it stands in `NFTA_IMMEDIATE_DATA` and in `NFTA_SET_ELEM_DATA`.
pub(in crate::kernel) fn verdict(data: Attributes<'_>) -> Option<Verdict> {
    let verdict = data.nested(uapi::NFTA_DATA_VERDICT)?;
    let chain = || verdict.text(uapi::NFTA_VERDICT_CHAIN).map(ChainId::read);
    Some(match verdict.number(uapi::NFTA_VERDICT_CODE)? {
        uapi::NF_ACCEPT => Verdict::Accept,
        uapi::NF_DROP => Verdict::Drop,
        uapi::NFT_RETURN => Verdict::Return,
        uapi::NFT_JUMP => Verdict::Jump(chain()?),
        uapi::NFT_GOTO => Verdict::Goto(chain()?),
        _ => return None,
    })
}
