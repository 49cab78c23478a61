//! Single changes to the code, each of them a bug, that the checks must find.
//!
//! [`Mutation`] is the list of all. The code asks whether one is on with [`mutated!`], which is the
//! constant `false` in ordinary builds, so that nothing of it is left there. With the feature `planted`
//! the environment variable `CELLBENCH_MUTATION` names the one that is on in a process. (Locks and cells
//! can also carry one in a single machine: `Machine::with_bug`.)
//!
//! Next to each mutation the list names the cheapest check that finds it. `scripts/mutations.sh` builds
//! all checks once, runs each with its mutation and without, and writes the table `docs/mutations.md`.

mod check;
pub mod input;
mod list;

pub use check::{Check, Suite};
pub use list::Mutation;

/// The environment variable that names the mutation which is on.
pub const VARIABLE: &str = "CELLBENCH_MUTATION";

/// Tells whether a mutation of the list is on: the constant `false` without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[macro_export]
macro_rules! mutated {
    ($name:ident) => {{
        // The name is looked up in every build.
        const _: $crate::Mutation = $crate::Mutation::$name;
        false
    }};
}

/// Tells whether a mutation of the list is on: the constant `false` without the feature `planted`.
#[cfg(feature = "planted")]
#[macro_export]
macro_rules! mutated {
    ($name:ident) => {
        $crate::is_on($crate::Mutation::$name)
    };
}

/// Returns whether a mutation is the one that the environment names.
///
/// # Panics
/// If the environment names one that is not in the list.
#[cfg(feature = "planted")]
#[must_use]
pub fn is_on(mutation: Mutation) -> bool {
    use std::sync::OnceLock;
    static ON: OnceLock<Option<Mutation>> = OnceLock::new();
    let on = ON.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok()?;
        let found = Mutation::ALL.iter().copied().find(|mutation| mutation.name() == name);
        Some(found.unwrap_or_else(|| panic!("{VARIABLE}={name}: not in the list")))
    });
    *on == Some(mutation)
}
