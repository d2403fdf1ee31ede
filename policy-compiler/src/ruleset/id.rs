//! What identifies a chain or a set: what it is for, and the name that follows from that.
//!
//! A name is a function of what it stands for and of nothing else, so the agent and the dry run agree, and a restarted
//! agent finds its own work again.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::NAME_MAX;
use super::digest::Digest;
use super::role::ChainRole;
use super::set_role::SetRole;

macro_rules! identifier {
    ($(#[$doc:meta])* $id:ident, $role:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $id(Arc<(Box<str>, $role)>);

        impl $id {
            /// What has this name in the kernel.
            pub fn read(name: &str) -> Self {
                Self(Arc::new((name.into(), $role::of(name))))
            }

            /// What it is for.
            pub fn role(&self) -> &$role {
                &self.0.1
            }

            /// The name as the kernel has it, of at most [`NAME_MAX`] bytes.
            pub fn name(&self) -> &str {
                &self.0.0
            }
        }

        impl From<$role> for $id {
            fn from(role: $role) -> Self {
                Self(Arc::new((printable(&role.to_string()).into(), role)))
            }
        }

        impl PartialEq for $id {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.name() == other.name()
            }
        }

        impl Eq for $id {}

        impl PartialOrd for $id {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $id {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) {
                    return Ordering::Equal;
                }
                self.name().cmp(other.name())
            }
        }

        impl Hash for $id {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.name().hash(state);
            }
        }

        impl Borrow<str> for $id {
            fn borrow(&self) -> &str {
                self.name()
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

identifier! {
    /// Identifies a chain of a table.
    ChainId, ChainRole
}
identifier! {
    /// Identifies a set or map of a table.
    SetId, SetRole
}

/// The text itself where nft can read it as a name; otherwise as much of it as can be kept, and a digest.
fn printable(text: &str) -> String {
    let readable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if text.len() <= NAME_MAX && text.chars().all(readable) {
        return text.to_owned();
    }
    let digest = Digest::of([text]).to_string();
    let kept = text.chars().map(|c| if readable(c) { c } else { '_' }).take(NAME_MAX - digest.len() - 1);
    kept.chain(['_']).chain(digest.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Direction, ObjectName};

    #[test]
    fn names_that_nft_cannot_read_or_the_kernel_not_take_are_cut_and_stay_apart() {
        let rule = |name: String| {
            let policy = ObjectName::new("shop", name);
            ChainId::from(ChainRole::Rule { direction: Direction::Ingress, policy, index: 0 })
        };
        let ids = [rule("x".repeat(253)), rule(format!("{}y", "x".repeat(252))), rule("a b".to_owned())];
        for id in &ids {
            assert!(id.name().len() <= NAME_MAX && !id.name().contains(' '), "{id}");
            assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "{id}");
            assert_eq!(ChainId::read(id.name()), *id);
            assert!(matches!(id.role(), ChainRole::Rule { .. }), "{id}");
        }
    }
}
