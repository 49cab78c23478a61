//! Which slice comes next: every chosen cell in turn, in shuffled order, and for each all of its
//! workloads before one comes again; every second slice of a cell is the one that does everything at
//! once.

use cellbench_workloads::registry::Entry;

use cellbench_measure::rng::Rng;
use cellbench_measure::session::subject::Subject;

/// The workload that does everything at once.
const HEAVY: &str = "stress";

/// One cell with the workloads that it is to be put under.
#[derive(Debug)]
pub struct Deck {
    /// Cell or lock.
    pub subject: Subject,
    heavy: Option<&'static Entry>,
    others: Vec<&'static Entry>,
    drawn: usize,
}

impl Deck {
    /// Makes the deck of a cell and the workloads that suit it; none without any.
    #[must_use]
    pub fn new(subject: Subject, workloads: Vec<&'static Entry>) -> Option<Self> {
        let (heavy, others): (Vec<_>, Vec<_>) =
            workloads.into_iter().partition(|workload| workload.id == HEAVY);
        let heavy = heavy.first().copied();
        (heavy.is_some() || !others.is_empty()).then_some(Self { subject, heavy, others, drawn: 0 })
    }

    /// Returns the number of draws after which every workload had its turn.
    #[must_use]
    pub fn slices(&self) -> usize {
        match self.heavy {
            Some(_) => 2 * self.others.len().max(1),
            None => self.others.len(),
        }
    }

    /// Draws the next workload.
    pub(crate) fn draw(&mut self, rng: &mut Rng) -> &'static Entry {
        let number = self.drawn;
        self.drawn += 1;
        let other = match self.heavy {
            Some(heavy) if number.is_multiple_of(2) || self.others.is_empty() => return heavy,
            Some(_) => number / 2,
            None => number,
        } % self.others.len();
        if other == 0 {
            rng.shuffle(&mut self.others);
        }
        self.others[other]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cellbench_workloads::registry::WORKLOADS;

    use super::*;
    use cellbench_measure::session::subject;

    #[test]
    fn all_workloads_come_before_one_comes_again() {
        let subject = subject::named("cmd-queue").remove(0);
        let suits = |entry: &&Entry| entry.suits("cmd-queue", subject.under());
        let workloads: Vec<&'static Entry> = WORKLOADS.iter().filter(suits).collect();
        let others = workloads.len() - 1;
        let mut deck = Deck::new(subject, workloads).unwrap();
        let mut rng = Rng::new(1);
        for _ in 0..3 {
            assert_eq!(deck.slices(), 2 * others);
            let drawn: Vec<_> = (0..deck.slices()).map(|_| deck.draw(&mut rng).id).collect();
            assert!(drawn.iter().step_by(2).all(|id| *id == HEAVY));
            let seen: BTreeSet<_> = drawn.iter().skip(1).step_by(2).collect();
            assert_eq!(seen.len(), others);
            assert!(!seen.contains(&HEAVY));
        }
    }

    #[test]
    fn without_the_heavy_one_or_with_it_alone() {
        let find = |id: &str| WORKLOADS.iter().find(|entry| entry.id == id).unwrap();
        let subject = || subject::named("cmd-queue").remove(0);
        let mut rng = Rng::new(1);
        let mut alone = Deck::new(subject(), vec![find(HEAVY)]).unwrap();
        let mut other = Deck::new(subject(), vec![find("churn")]).unwrap();
        for _ in 0..3 {
            assert_eq!(alone.draw(&mut rng).id, HEAVY);
            assert_eq!(other.draw(&mut rng).id, "churn");
        }
        assert!(Deck::new(subject(), Vec::new()).is_none());
    }
}
