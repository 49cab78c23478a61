//! The measuring part as a build without the feature `bpf` has it: every way in says how to get it.
//!
//! The types cannot be made, so that nothing behind them needs a body.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::marker::PhantomData;

use cellbench_record::Invariants;

use crate::counts::Counts;
use crate::error::Error;
use crate::histogram::Histogram;
use crate::options::Options;
use crate::plan::{Event, Plan};
use crate::rows::Row;

/// A row, loaded into the kernel; cannot exist in this build.
#[derive(Debug)]
pub struct Bench(Infallible);

impl Bench {
    /// Says how to get the measuring part.
    ///
    /// # Errors
    /// Always [`Error::NotBuilt`].
    pub fn open(_: &Row, _: Options) -> Result<Self, Error> {
        Err(Error::NotBuilt)
    }

    /// A thread's hold on the bench.
    ///
    /// # Errors
    /// None: there is no bench in this build.
    pub fn worker(&self, _: u32) -> Result<Worker<'_>, Error> {
        match self.0 {}
    }

    /// Latency of the timed attempts.
    ///
    /// # Errors
    /// None: there is no bench in this build.
    pub fn latency(&self) -> Result<BTreeMap<&'static str, Histogram>, Error> {
        match self.0 {}
    }

    /// Callbacks that ran so far.
    ///
    /// # Errors
    /// None: there is no bench in this build.
    pub fn callbacks(&self) -> Result<u64, Error> {
        match self.0 {}
    }

    /// Checks what must hold at rest.
    ///
    /// # Errors
    /// None: there is no bench in this build.
    pub fn check(&self, _: &Counts) -> Result<Invariants, Error> {
        match self.0 {}
    }
}

/// A thread's hold on a bench; cannot exist in this build.
#[derive(Debug)]
pub struct Worker<'b>(Infallible, PhantomData<&'b Bench>);

impl Worker<'_> {
    /// Goes round the row's loop.
    ///
    /// # Errors
    /// None: there is no worker in this build.
    pub fn run_batch(&mut self, _: u32) -> Result<Counts, Error> {
        match self.0 {}
    }

    /// Attempts until a deadline.
    ///
    /// # Errors
    /// None: there is no worker in this build.
    pub fn run_until(&mut self, _: u64) -> Result<Counts, Error> {
        match self.0 {}
    }
}

/// A measurement; cannot exist in this build.
#[derive(Debug)]
pub struct Measurement(Infallible);

impl Measurement {
    /// Series planned.
    #[must_use]
    pub fn series_count(&self) -> usize {
        match self.0 {}
    }

    /// Cost of timing one attempt.
    #[must_use]
    pub fn timing_cost_ns(&self) -> f64 {
        match self.0 {}
    }
}

impl Iterator for Measurement {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0 {}
    }
}

/// Says how to get the measuring part.
///
/// # Errors
/// Always [`Error::NotBuilt`].
pub fn measure(_: Plan) -> Result<Measurement, Error> {
    Err(Error::NotBuilt)
}
