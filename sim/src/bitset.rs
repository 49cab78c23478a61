//! Sets of small numbers, one bit each.

/// Returns the positions of the set bits, ascending.
pub(crate) fn bits(words: &[u64]) -> impl Iterator<Item = u16> + '_ {
    words.iter().enumerate().flat_map(|(position, &word)| {
        std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)))
            .take_while(|&rest| rest != 0)
            .map(move |rest| (position * 64) as u16 + rest.trailing_zeros() as u16)
    })
}

/// Many sets over the same numbers, side by side.
#[derive(Debug)]
pub(crate) struct BitSets {
    words: Vec<u64>,
    /// Words of each set.
    width: usize,
}

impl BitSets {
    /// Makes room for sets over the numbers below a limit.
    pub(crate) fn below(limit: usize) -> Self {
        Self { words: Vec::new(), width: limit.div_ceil(64) }
    }

    /// Adds an empty set behind the others.
    pub(crate) fn grow(&mut self) {
        self.words.resize(self.words.len() + self.width, 0);
    }

    /// Returns the words of one set.
    #[inline]
    pub(crate) fn set(&self, set: u32) -> &[u64] {
        let first = set as usize * self.width;
        &self.words[first..first + self.width]
    }

    /// Returns whether a number is in a set.
    #[inline]
    pub(crate) fn contains(&self, set: u32, number: u16) -> bool {
        self.words[set as usize * self.width + number as usize / 64] >> (number % 64) & 1 != 0
    }

    /// Puts a number into a set. Returns whether that changes the set.
    #[inline]
    pub(crate) fn insert(&mut self, set: u32, number: u16) -> bool {
        let word = &mut self.words[set as usize * self.width + number as usize / 64];
        let bit = 1 << (number % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Takes a number out of a set. Returns whether that changes the set.
    #[inline]
    pub(crate) fn remove(&mut self, set: u32, number: u16) -> bool {
        let word = &mut self.words[set as usize * self.width + number as usize / 64];
        let bit = 1 << (number % 64);
        let was_in = *word & bit != 0;
        *word &= !bit;
        was_in
    }

    /// Empties a set.
    pub(crate) fn clear(&mut self, set: u32) {
        let first = set as usize * self.width;
        self.words[first..first + self.width].fill(0);
    }
}
