//! Text of a manifest in a message.

/// Text for a message: what is in it cannot disturb a terminal, and not too much of it.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
