//! Simulated words as the simulation knows them: where each is, and its value.

use crate::costs::Ps;

/// No line: the slot was not used by the present simulation yet.
pub(crate) const NO_LINE: u32 = u32::MAX;
/// No virtual core: the word was created outside a simulation.
pub(crate) const NO_CORE: u16 = u16::MAX;

/// The value of a simulated word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word {
    pub(crate) value: u64,
    /// Grows each time the slot is used for a new word.
    pub(crate) generation: u32,
}

/// The properties of one simulated word, except its value.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Address the line below was looked up for.
    pub(crate) address: usize,
    /// Dense number of the cache line in the simulation `epoch`, or [`NO_LINE`].
    pub(crate) line: u32,
    /// The simulation that `line`, `creator` and `last_writer` belong to.
    pub(crate) epoch: u32,
    pub(crate) label: u32,
    /// Core that created the word, or [`NO_CORE`].
    pub(crate) creator: u16,
    /// Until when a read-modify-write of its last writer waits for a store of a part of it.
    pub(crate) partial_until: Ps,
    /// Core that wrote it last in this simulation, or [`NO_CORE`].
    pub(crate) last_writer: u16,
    /// Whether the statistics know that several cores write it.
    pub(crate) many_writers: bool,
    /// Dense number of the label in the simulation `epoch`: selects the rows of its statistics.
    pub(crate) row: u32,
    pub(crate) live: bool,
}

/// A store that is to change a word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) mask: u64,
    pub(crate) new: u64,
}

impl Commit {
    /// Lets the store take effect. Returns whether it changes its word.
    pub(crate) fn apply(&self, words: &mut [Word]) -> bool {
        let word = &mut words[self.slot as usize];
        let value = word.value & !self.mask | self.new;
        // A word dropped meanwhile is nobody's any more.
        let changes = word.generation == self.generation && word.value != value;
        if changes {
            word.value = value;
        }
        changes
    }
}
