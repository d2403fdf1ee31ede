//! JSON is YAML, as far as the YAML parser goes along with that.

use std::borrow::Cow;

/// The text as the YAML parser likes it, with every line where it was.
///
/// Characters beyond the Basic Multilingual Plane are escaped as two `\u` in JSON (RFC 8259, 7), which YAML
/// does not know. And the parser must look for a `:` behind every `{` or `[` that starts a line, for it might
/// be the key of an object, and keeps all that it meets on the way; behind a `---` on the same line it cannot
/// be one.
pub(super) fn as_yaml(text: &str) -> Cow<'_, str> {
    let json = text.trim_start();
    if !json.starts_with(['{', '[']) {
        return Cow::Borrowed(text);
    }
    let mut yaml = String::with_capacity(text.len() + 4);
    yaml.extend(text.bytes().take(text.len() - json.len()).filter(|byte| *byte == b'\n').map(char::from));
    yaml.push_str("--- ");
    let mut rest = json;
    while let Some((before, escape)) = rest.find('\\').and_then(|index| rest.split_at_checked(index)) {
        yaml.push_str(before);
        let length: usize = if let Some(char) = surrogate_pair(escape) {
            yaml.push(char);
            12
        } else {
            // The backslash and what it escapes, which may be another backslash.
            escape.chars().take(2).inspect(|char| yaml.push(*char)).map(char::len_utf8).sum()
        };
        rest = escape.get(length..).unwrap_or_default();
    }
    yaml.push_str(rest);
    Cow::Owned(yaml)
}

/// The character that a text starts with in the form `\uD83E\uDD80`.
fn surrogate_pair(text: &str) -> Option<char> {
    let unit = |start: usize| {
        let escape = text.get(start..start + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(escape, 16).ok()
    };
    let (high, low) = (unit(0)?, unit(6)?);
    char::decode_utf16([high, low]).next()?.ok().filter(|char| *char > '\u{ffff}')
}
