//! Known bugs, each of them once a race that a reviewer found by reading, the slip that a design
//! invites, or a single change that a checker once did not see. Compiled only for the tests that show
//! that the checkers find them. A machine carries at most one
//! ([`Machine::with_bug`](crate::machine::Machine::with_bug)), a process likewise. The list is that of
//! [`cellbench_mutations`].

pub use cellbench_mutations::Mutation as Bug;
use cellbench_mutations::{Check, Suite};

/// Returns the bugs that `proof` hunts: each is one of a machine.
pub fn hunted() -> impl Iterator<Item = Bug> {
    let is_hunted = |bug: &Bug| matches!(bug.check(), Check::Found(Suite::Hunt, _));
    Bug::ALL.iter().copied().filter(is_hunted)
}
