//! The model's answer to a question.

use super::{Ask, DataSet, Prediction, Question, Row};
use crate::calibrate::{PingPong, ping_pong_ns};
use crate::primitive::{self, Primitive};
use crate::{MachineModel, SimError};

/// Seeds that each row is predicted with on the machine as its file says.
pub const SEEDS: u64 = 5;
/// Machines that are drawn within the uncertainty of their figures, each with a seed of its own.
pub const DRAWS: u64 = 9;
/// Simulated time of a primitive: some thousand transfers.
const WINDOW_NS: f64 = 60_000.0;

impl DataSet {
    /// Predicts the answer to a question with one seed on a machine.
    ///
    /// # Errors
    /// As [`primitive::run`].
    pub fn predict(
        &self,
        question: &Question,
        machine: &MachineModel,
        seed: u64,
    ) -> Result<f64, SimError> {
        let step_ns = |primitive: Primitive, threads: usize| {
            let cores: Vec<usize> = (0..threads).collect();
            Ok(primitive::run(machine, primitive, &cores, WINDOW_NS, seed)?.step_ns)
        };
        match question.ask {
            Ask::Step(primitive) => step_ns(primitive, question.threads),
            Ask::Relative(primitive, base) => {
                Ok(step_ns(primitive, base)? / step_ns(primitive, question.threads)?)
            }
            Ask::PingPong(pair) => ping_pong_ns(machine, pair, PingPong::CompareExchange),
        }
    }

    /// Predicts the answer to a question over [`SEEDS`] seeds and so many drawn machines.
    ///
    /// # Errors
    /// As [`Self::predict`].
    pub fn row(&self, question: &Question, draws: u64) -> Result<Row, SimError> {
        let seeds: Result<Vec<f64>, SimError> =
            (1..=SEEDS).map(|seed| self.predict(question, &self.machine, seed)).collect();
        let drawn: Result<Vec<f64>, SimError> = (1..=draws)
            .map(|draw| self.predict(question, &self.machine.drawn(draw), SEEDS + draw))
            .collect();
        let predicted = Prediction::of(seeds?, &drawn?).expect("there are seeds");
        Ok(Row {
            name: question.name.clone(),
            threads: question.threads,
            measured: question.measured,
            quartiles: None,
            group: question.group.clone(),
            predicted,
            half: self.half(question),
            is_one_regime: true,
        })
    }
}
