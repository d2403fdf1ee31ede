//! What a scalar stands for.

/// A scalar as it was written.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub(super) text: Box<str>,
    /// Neither quoted nor a block: it may stand for something other than a string.
    pub(super) plain: bool,
}

/// What a scalar stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Resolved<'s> {
    Null,
    Bool(bool),
    /// `None` if it does not fit, or if YAML 1.1 and 1.2 differ on it (`0123`).
    Integer(Option<i64>),
    Float,
    String(&'s str),
}

impl Scalar {
    /// Resolves it as `kubectl` does: the core schema of YAML 1.2, and the booleans and digit separators
    /// of YAML 1.1, which `kubectl` does not take for strings either.
    pub(super) fn resolve(&self) -> Resolved<'_> {
        let text = &*self.text;
        if !self.plain {
            return Resolved::String(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "y" | "Y" | "on" | "On" | "ON" => {
                Resolved::Bool(true)
            }
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "n" | "N" | "off" | "Off" | "OFF" => {
                Resolved::Bool(false)
            }
            _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
                number(text)
            }
            _ => Resolved::String(text),
        }
    }

    /// What it is as the key of an object: `kubectl` makes a string of what it stands for.
    pub(super) fn into_key(self) -> Box<str> {
        match self.resolve() {
            Resolved::Bool(value) => value.to_string().into(),
            Resolved::Integer(Some(number)) => number.to_string().into(),
            Resolved::Float => match self.text.replace('_', "").parse::<f32>() {
                // Others become powers of ten, which no name of a label is.
                Ok(number) if (1e-4..1e6).contains(&number.abs()) => number.to_string().into(),
                _ => self.text,
            },
            _ => self.text,
        }
    }
}

fn number(text: &str) -> Resolved<'_> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned.replace('_', "");
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let prefixed = [("0x", 16), ("0X", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| digits.strip_prefix(prefix).map(|rest| (rest, radix)));
    if let Some((rest, radix)) = prefixed {
        if !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)) {
            return Resolved::Integer(i64::from_str_radix(rest, radix).ok().map(|value| sign * value));
        }
    } else if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let ambiguous = digits.len() > 1 && digits.starts_with('0');
        return Resolved::Integer(digits.parse().ok().filter(|_| !ambiguous).map(|value: i64| sign * value));
    }
    let special = matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN");
    let numeric = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if special || (numeric && digits.parse::<f64>().is_ok()) {
        return Resolved::Float;
    }
    Resolved::String(text)
}
