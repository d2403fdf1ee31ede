//! Texts that are no manifests yet: templates, and objects with variables in them.

use std::path::Path;

use super::quoted::quoted;

/// What stands for something that is filled in before an object is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placeholder {
    /// `{{ … }}`, as in the templates of a Helm chart.
    Helm,
    /// `${…}`, as `envsubst` and `oc process` fill it in.
    Variable,
}

impl Placeholder {
    /// The placeholder in a text, if it has one. `${{…}}` is a variable.
    pub(super) fn find(text: &str) -> Option<Self> {
        let has = |open: &str, close: &str| {
            let mut places = text.match_indices(open);
            places.any(|(start, _)| {
                let (before, rest) = text.split_at(start);
                !before.ends_with('$') && rest.contains(close)
            })
        };
        if has("{{", "}}") { Some(Self::Helm) } else { has("${", "}").then_some(Self::Variable) }
    }

    /// What is wrong with a text that it stands in.
    pub(super) fn in_text(self, text: &str, file: &str) -> String {
        format!("{} is not filled in: {}", quoted(text), self.remedy(file))
    }

    /// What a file with such placeholders is, and what to do about it.
    pub(super) fn remedy(self, file: &str) -> String {
        match self {
            Self::Helm => {
                let mut directories = Path::new(file).ancestors().skip(1);
                let chart = directories.find(|directory| directory.join("Chart.yaml").is_file());
                let chart = chart.map_or("CHART".into(), Path::to_string_lossy);
                format!("a Helm template: render it: `helm template {chart} | podfence … -f -`")
            }
            Self::Variable => {
                "a template with `${…}` in it: fill it in (`envsubst`, `oc process`) and give it as `-f -`"
                    .to_owned()
            }
        }
    }
}
