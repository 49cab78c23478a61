//! The checks that find mutations: a test binary and a filter.

/// A test binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// Hunts in a process of their own, as `proof` has them: the test `planted/NAME` switches the bug on
    /// by itself, and passes where it is found.
    Hunt,
    /// Access scripts.
    Scripts,
    /// Grace periods, allocator, `irq_work` and engine in every interleaving.
    Mechanisms,
    /// Tests beside the implementations.
    Impls,
    /// Effects that each constant of a simulated machine must have.
    SimTerms,
    /// Who supplies a line, under each protocol.
    SimCoherence,
    /// Cores, siblings and interrupts.
    SimCores,
    /// Cores that execute ahead of a miss.
    SimRunAhead,
    /// Statements of every textbook on locks and shared lines.
    SimTextbook,
    /// Tests beside the statistics.
    Stats,
    /// The inference as a whole, on rounds whose truth is known.
    Inference,
    /// The summary of rounds.
    Summary,
}

impl Suite {
    /// Returns the package that the binary belongs to.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Hunt | Self::Scripts | Self::Mechanisms | Self::Impls => "cellbench-impls",
            Self::SimTerms
            | Self::SimCoherence
            | Self::SimCores
            | Self::SimRunAhead
            | Self::SimTextbook => "cellbench-sim",
            Self::Stats => "cellbench-stats",
            Self::Inference | Self::Summary => "cellbench-plots",
        }
    }

    /// Tells whether the binary explores interleavings: on small stacks, and for long.
    #[must_use]
    pub const fn explores(self) -> bool {
        matches!(self, Self::Hunt | Self::Mechanisms)
    }

    /// Returns the name of the integration test; `None` for the tests beside the code.
    #[must_use]
    pub const fn test(self) -> Option<&'static str> {
        match self {
            Self::Hunt => Some("hunts"),
            Self::Scripts => Some("scripts"),
            Self::Mechanisms => Some("loom_mechanisms"),
            Self::SimTerms => Some("terms"),
            Self::SimCoherence => Some("coherence"),
            Self::SimCores => Some("cores"),
            Self::SimRunAhead => Some("run_ahead"),
            Self::SimTextbook => Some("textbook"),
            Self::Inference => Some("inference"),
            Self::Summary => Some("summary"),
            Self::Impls | Self::Stats => None,
        }
    }
}

/// How a mutation is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// By the tests of a binary whose names contain the text.
    Found(Suite, &'static str),
    /// Not at all: nothing can see it, for the reason given.
    Equivalent(&'static str),
}
