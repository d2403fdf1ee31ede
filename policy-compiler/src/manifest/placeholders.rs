//! Texts that are no manifests yet: templates, and objects with variables in them.

use std::fmt;

/// What stands for something that is filled in before an object is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placeholder {
    /// `{{ … }}`, as in the templates of a Helm chart.
    Helm,
    /// `${…}`, as `envsubst` and `oc process` fill it in.
    Variable,
}

impl Placeholder {
    /// The first placeholder in a text.
    pub(super) fn find(text: &str) -> Option<Self> {
        let closed = |open, close| text.split_once(open).is_some_and(|(_, rest)| rest.contains(close));
        if closed("${", "}") { Some(Self::Variable) } else { closed("{{", "}}").then_some(Self::Helm) }
    }
}

/// What to do about it.
impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Helm => "a Helm template: render it: `helm template CHART | podfence … -f -`",
            Self::Variable => {
                "a template with `${…}` in it: fill it in (`envsubst`, `oc process`) and give it as `-f -`"
            }
        })
    }
}
