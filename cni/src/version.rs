//! The versions of the CNI specification that the plugin speaks.

/// All of them, the oldest first. The first has chains of plugins.
pub const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", NEWEST];

/// The newest of them.
pub const NEWEST: &str = "1.1.0";

/// Whether a version is supported and not older than another that is.
pub fn is_at_least(version: &str, oldest: &str) -> bool {
    let place = |wanted| SUPPORTED.iter().position(|version| *version == wanted);
    place(version).is_some_and(|place_of_version| place(oldest) <= Some(place_of_version))
}
