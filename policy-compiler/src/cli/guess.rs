//! What a misspelt name may have meant.

/// Names less alike than this are not worth a guess (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.85;

/// So many names are proposed.
const GUESSES: usize = 3;

/// `: did you mean a or b?`, or nothing where no candidate is like `wanted`. A candidate `namespace/name` is
/// compared by its name alone too.
pub(crate) fn did_you_mean(wanted: &str, candidates: impl IntoIterator<Item = String>) -> String {
    let bare = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let likeness = |candidate: &str| {
        let names = strsim::jaro_winkler(&bare(candidate), &bare(wanted));
        names.max(strsim::jaro_winkler(candidate, wanted))
    };
    let candidates = candidates.into_iter().map(|candidate| (likeness(&candidate), candidate));
    let mut alike: Vec<_> = candidates.filter(|(likeness, _)| *likeness > ALIKE).collect();
    alike.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let names: Vec<_> = alike.into_iter().take(GUESSES).map(|(_, name)| name).collect();
    if names.is_empty() { String::new() } else { format!(": did you mean {}?", names.join(" or ")) }
}
