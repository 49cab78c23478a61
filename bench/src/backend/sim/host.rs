//! The host as a simulated machine: a few microbenchmarks, none of which is a lock or a cell, and
//! the model at which they come out as measured.
//!
//! | measured | by | figure of the model |
//! |---|---|---|
//! | load, store, atomic, fence, pause, clock | one CPU, an owned line | costs of hits |
//! | branches that nobody can predict | one CPU | what a core loses when a line arrives |
//! | an operation that is refused at once | one CPU | code between operations |
//! | ping-pong by loads and stores, two lines | two CPUs | transfer |
//! | additions to two lines in turn, one of which the other reads now and then | two CPUs | what a disturbed core loses |
//! | ping-pong by compare-exchange, one line | two CPUs | ownership share |
//! | additions to one word by both | two CPUs | share for a line taken for an addition |
//! | ping-pong by loads and stores, one line and two lines | two CPUs | whether lines migrate |
//!
//! A ping-pong on two lines takes two transfers one way: the writer's copy has to become the only one,
//! and the reader has to fetch it again. (Loads of lines that the other CPU wrote, each found in the one
//! before, are measured too, and shown. On AMD they take a transfer each; on an Emerald Rapids guest half
//! a transfer, although each address is in the line before: the chain had a constant stride, which
//! prefetchers follow.) The ownership share is the figure at which the model gives the measured
//! ping-pong by compare-exchange. Where lines migrate, a ping-pong takes one transfer on one line.
//! Between other CPUs than the first two, transfers are those of the ping-pongs, in the same ratio. What cannot be measured so
//! (store buffer, memory, interrupts) is taken from the built-in machine of the same vendor, and the
//! machine's sources say so.

use cellbench_sim::calibrate::{
    PingPong, addition_share_from_contention, ownership_share_from_ping_pong,
};
use cellbench_sim::machine::{
    Distance, HitCosts, HostMeasurements, MachineError, Place, Source, SourceKind,
};
use cellbench_sim::{MachineModel, SimError};
use serde::{Deserialize, Serialize};

use cellbench_host::c2c::{self, C2cError, Effort, Matrix, Method};
use cellbench_host::clock::median;
use cellbench_host::cpus::CpuId;
use cellbench_host::describe::describe;
use cellbench_host::pin::PinError;
use cellbench_host::{Clock, Roots, Topology};
use cellbench_measure::backend::cores::microbench::{self, Alone};

/// A ping-pong that takes less than this share of the time on one line moves the line once where
/// the
/// other moves it twice: half the time, but for what both spend in their loops.
const MIGRATORY_SHARE: f64 = 0.75;

/// Figures of microbenchmarks on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Microbenchmarks {
    /// CPU model, as the host names it.
    pub cpu_model: String,
    /// CPUs that were measured, by the host's numbers.
    pub cpus: Vec<u32>,
    /// Where each of them is.
    pub places: Vec<Place>,
    /// Times of operations that one CPU makes alone.
    pub alone: Alone,
    /// One way of a ping-pong by compare-exchange on one line, between each two of the CPUs.
    pub compare_exchange_ns: Vec<Vec<Option<f64>>>,
    /// One way of a ping-pong by loads and stores on two lines.
    pub read_write_ns: Vec<Vec<Option<f64>>>,
    /// One way of a ping-pong by loads and stores on one line, between the first two CPUs.
    pub one_line_ns: f64,
    /// A load of a line that the other of the first two CPUs wrote, whose address stands in such a
    /// line.
    pub chain_ns: f64,
    /// Loss of the first CPU, which adds to two lines in turn, by a read of one of them by the second CPU:
    /// the transfer, and the work that it had executed ahead.
    pub disturbed_ns: f64,
    /// An addition, of all that the first two CPUs make to one word; older measurements have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addition_ns: Option<f64>,
}

/// The host cannot be made a machine.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A ping-pong.
    #[error(transparent)]
    C2c(#[from] C2cError),
    /// A CPU cannot be used.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The model refuses what was measured.
    #[error("what was measured on the host makes no machine: {0}; measure again undisturbed")]
    Machine(#[from] MachineError),
    /// A load or a store took longer than an addition, which is both: a loop was measured, or another task.
    #[error(
        "a {access} takes {ns:.2} ns here and an atomic addition {atomic_ns:.2}, which no processor does: \
         measure again undisturbed, with a command built by `cargo build --release`"
    )]
    Implausible {
        /// The access.
        access: &'static str,
        /// Its time.
        ns: f64,
        /// The time of an addition.
        atomic_ns: f64,
    },
    /// The search for the model's figures.
    #[error(transparent)]
    Simulation(#[from] SimError),
    /// No two CPUs that a line moves between were measured.
    #[error("no ping-pong between two cores was measured; measure again")]
    NoPingPong,
    /// One CPU alone.
    #[error("only one CPU is usable: a machine to simulate needs a distance between two")]
    OneCpu,
}

/// Measures on `cpus`.
///
/// # Errors
/// [`HostError`] if one of them cannot be used, or there is only one.
pub fn measure(
    topology: &Topology,
    cpus: &[CpuId],
    effort: Effort,
    clock: &Clock,
) -> Result<Microbenchmarks, HostError> {
    let [first, _, ..] = *cpus else { return Err(HostError::OneCpu) };
    let place = |cpu: &CpuId| {
        let found = topology.cpu(*cpu);
        let package = found.and_then(|cpu| cpu.package).unwrap_or(0);
        Place {
            core: found.map_or(cpu.0, |cpu| cpu.core),
            llc: found.and_then(|cpu| cpu.llc).unwrap_or(package),
            socket: package,
        }
    };
    let matrix = |method| c2c::measure(cpus, method, effort, clock);
    let used = cpus.iter().copied().collect();
    Ok(Microbenchmarks {
        cpu_model: describe(&Roots::live(), topology, &used)
            .cpu_model
            .unwrap_or_else(|| "unknown CPU".to_owned()),
        cpus: cpus.iter().map(|cpu| cpu.0).collect(),
        places: cpus.iter().map(place).collect(),
        alone: microbench::alone(first, clock)?,
        compare_exchange_ns: matrix(Method::CompareExchange)?.one_way_ns,
        read_write_ns: matrix(Method::ReadWrite)?.one_way_ns,
        one_line_ns: microbench::one_line(&cpus[..2], clock)?,
        chain_ns: microbench::chain(&cpus[..2], clock)?,
        disturbed_ns: microbench::disturbed(&cpus[..2], clock)?,
        addition_ns: Some(microbench::additions(&cpus[..2], clock)?),
    })
}

impl Microbenchmarks {
    /// Returns the median of several measurements of the same CPUs, figure by figure.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn median_of(all: &[Self]) -> Self {
        let mut result = all.first().expect("something was measured").clone();
        let middle = |figure: &dyn Fn(&Self) -> f64| {
            median(&mut all.iter().map(figure).collect::<Vec<f64>>())
        };
        result.alone = Alone {
            load_ns: middle(&|one| one.alone.load_ns),
            store_ns: middle(&|one| one.alone.store_ns),
            atomic_ns: middle(&|one| one.alone.atomic_ns),
            fence_ns: middle(&|one| one.alone.fence_ns),
            partial_store_ns: middle(&|one| one.alone.partial_store_ns),
            pause_ns: middle(&|one| one.alone.pause_ns),
            clock_ns: middle(&|one| one.alone.clock_ns),
            mispredict_ns: middle(&|one| one.alone.mispredict_ns),
            operation_ns: middle(&|one| one.alone.operation_ns),
            turn_ns: middle(&|one| one.alone.turn_ns),
        };
        result.one_line_ns = middle(&|one| one.one_line_ns);
        result.chain_ns = middle(&|one| one.chain_ns);
        result.disturbed_ns = middle(&|one| one.disturbed_ns);
        let mut additions: Vec<f64> = all.iter().filter_map(|one| one.addition_ns).collect();
        result.addition_ns = (!additions.is_empty()).then(|| median(&mut additions));
        for from in 0..result.cpus.len() {
            for to in (0..result.cpus.len()).filter(|&to| to != from) {
                let at = |matrix: &Vec<Vec<Option<f64>>>| matrix[from][to].unwrap_or(0.0);
                result.compare_exchange_ns[from][to] =
                    Some(middle(&|one| at(&one.compare_exchange_ns)));
                result.read_write_ns[from][to] = Some(middle(&|one| at(&one.read_write_ns)));
            }
        }
        result
    }

    /// Returns the machine at which the model gives what was measured; its hardware threads are the
    /// measured CPUs in their order.
    ///
    /// # Errors
    /// [`HostError`] if the figures are impossible.
    pub fn machine(&self) -> Result<MachineModel, HostError> {
        self.alone_is_plausible()?;
        let typical = |one_way_ns: &[Vec<Option<f64>>]| {
            let between = |(a, b): (usize, usize)| one_way_ns.get(a)?.get(b).copied()?;
            let mut found: Vec<f64> = self.pairs().filter_map(between).collect();
            if found.is_empty() { Err(HostError::NoPingPong) } else { Ok(median(&mut found)) }
        };
        let (a, b) = self.pairs().next().ok_or(HostError::OneCpu)?;
        let compare_exchange_ns = typical(&self.compare_exchange_ns)?;
        let base = self.vendor()?;
        let Alone { load_ns, store_ns, atomic_ns, fence_ns, partial_store_ns, .. } = self.alone;
        let Alone { pause_ns, clock_ns, .. } = self.alone;
        let read_write_ns = typical(&self.read_write_ns)?;
        let migratory = self.one_line_ns < MIGRATORY_SHARE * read_write_ns;
        let transfer_ns = read_write_ns / 2.0;
        let measured = |transfers_ns: Vec<Vec<f64>>, ownership_share| {
            let mut model = MachineModel::from_host(HostMeasurements {
                cpu_model: self.cpu_model.clone(),
                threads: self.places.clone(),
                transfer_ns: transfers_ns,
                protocol: base.protocol,
                hit: HitCosts { load_ns, store_ns, atomic_ns, partial_store_ns, fence_ns },
                fill: base.fill,
                directory: cellbench_sim::machine::DirectoryCosts {
                    ownership_share,
                    migratory,
                    ..base.directory
                },
                store_buffer: base.store_buffer,
                core: cellbench_sim::machine::CoreCosts {
                    pause_ns,
                    clock_ns,
                    restart_ns: self.alone.mispredict_ns,
                    disturbed_ns: (self.disturbed_ns - transfer_ns).max(0.0),
                    operation_ns: self.alone.operation_ns,
                    ..base.core
                },
            })?;
            model.sources = sources(&base);
            Ok::<_, HostError>(model)
        };
        // Hits are a small part of a ping-pong: other pairs differ by their transfer.
        let first = self.compare_exchange_ns.get(a).and_then(|row| row.get(b));
        let first_ns = first.copied().flatten().unwrap_or(compare_exchange_ns);
        let scale = transfer_ns / first_ns;
        let row = |row: &Vec<Option<f64>>| {
            // Entries that were not measured lie between threads of one core, and are not used.
            row.iter().map(|ns| ns.map_or(0.0, |ns| ns * scale)).collect::<Vec<f64>>()
        };
        let matrix: Vec<Vec<f64>> = self.compare_exchange_ns.iter().map(row).collect();
        let mut fitted = measured(matrix, base.directory.ownership_share)?;
        let style = PingPong::CompareExchange;
        fitted.directory.ownership_share =
            ownership_share_from_ping_pong(&fitted, [a, b], style, first_ns)?;
        if let Some(addition_ns) = self.addition_ns {
            let share = addition_share_from_contention(&fitted, [a, b], addition_ns)?;
            fitted.directory.addition_share = Some(share);
        }
        Ok(fitted)
    }

    /// Checks that a load and a store each take less than an atomic addition, which is both.
    fn alone_is_plausible(&self) -> Result<(), HostError> {
        let Alone { load_ns, store_ns, atomic_ns, .. } = self.alone;
        match [("load", load_ns), ("store", store_ns)].into_iter().find(|(_, ns)| *ns > atomic_ns) {
            Some((access, ns)) => Err(HostError::Implausible { access, ns, atomic_ns }),
            None => Ok(()),
        }
    }

    /// Returns each two of the CPUs that a line moves between.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let count = self.places.len();
        (0..count)
            .flat_map(move |a| (a + 1..count).map(move |b| (a, b)))
            .filter(|&(a, b)| self.places[a].distance(self.places[b]) != Distance::SameCore)
    }

    /// Returns the built-in machine of the same vendor.
    fn vendor(&self) -> Result<MachineModel, MachineError> {
        let name = if self.cpu_model.contains("AMD") {
            "epyc-genoa-2s"
        } else if cfg!(target_arch = "aarch64") {
            "graviton3"
        } else {
            "xeon-spr-2s"
        };
        MachineModel::preset(name)
    }
}

fn sources(base: &MachineModel) -> Vec<Source> {
    let source = |fields: &[&str], kind, text: String| Source {
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
        kind,
        text,
    };
    vec![
        source(
            &["hit", "core.pause_ns", "core.clock_ns"],
            SourceKind::Measured,
            "Loops of one CPU on a line that it owns.".to_owned(),
        ),
        source(
            &["transfer"],
            SourceKind::Measured,
            "Half of a ping-pong by loads and stores on two lines, one way; other pairs of CPUs in the \
             ratio of their ping-pongs by compare-exchange."
                .to_owned(),
        ),
        source(
            &["directory.ownership_share"],
            SourceKind::Measured,
            "The figure at which the model gives the measured ping-pong by compare-exchange."
                .to_owned(),
        ),
        source(
            &["directory.addition_share"],
            SourceKind::Measured,
            "The figure at which additions to one word by two CPUs take as long in the model."
                .to_owned(),
        ),
        source(
            &["core.disturbed_ns"],
            SourceKind::Measured,
            "What one CPU, which adds to two lines in turn, loses by each read of one of them by \
             the other, less the transfer."
                .to_owned(),
        ),
        source(
            &["directory.migratory"],
            SourceKind::Measured,
            "Whether a ping-pong by loads and stores is much faster on one line than on two."
                .to_owned(),
        ),
        source(
            &["core.restart_ns", "core.operation_ns"],
            SourceKind::Measured,
            "Branches that nobody can predict; operations that are refused at once.".to_owned(),
        ),
        source(
            &["protocol", "fill", "directory", "store_buffer", "core"],
            SourceKind::Estimate,
            format!("The rest is taken from the built-in machine {}: {}.", base.name, base.title),
        ),
    ]
}

/// Returns what [`c2c::measure`] found, for those who only need one figure of two CPUs.
pub(crate) fn one_way_ns(cpus: [CpuId; 2], effort: Effort, clock: &Clock) -> Result<f64, C2cError> {
    let matrix: Matrix = c2c::measure(&cpus, Method::CompareExchange, effort, clock)?;
    Ok(matrix.median_ns().unwrap_or(0.0))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn measured(compare_exchange_ns: f64, read_write_ns: f64) -> Microbenchmarks {
        let both = |ns| vec![vec![None, Some(ns)], vec![Some(ns), None]];
        Microbenchmarks {
            cpu_model: "AMD EPYC".to_owned(),
            cpus: vec![4, 6],
            places: vec![
                Place { core: 2, llc: 0, socket: 0 },
                Place { core: 3, llc: 0, socket: 0 },
            ],
            alone: Alone {
                load_ns: 0.3,
                store_ns: 0.2,
                atomic_ns: 2.1,
                fence_ns: 1.9,
                partial_store_ns: 4.0,
                pause_ns: 24.0,
                clock_ns: 25.0,
                mispredict_ns: 4.5,
                operation_ns: 1.0,
                turn_ns: 0.28,
            },
            compare_exchange_ns: both(compare_exchange_ns),
            read_write_ns: both(read_write_ns),
            one_line_ns: 27.0,
            chain_ns: 29.0,
            disturbed_ns: 52.0,
            addition_ns: Some(12.0),
        }
    }

    #[test]
    fn the_machine_gives_the_ping_pongs_it_was_made_from() {
        use cellbench_sim::calibrate::{PingPong, contended_addition_ns, ping_pong_ns};
        let machine = measured(26.0, 54.0).machine().expect("possible figures");
        let one_way_ns = ping_pong_ns(&machine, [0, 1], PingPong::CompareExchange);
        let one_way_ns = one_way_ns.expect("it runs");
        // An owner completes the atomic that it is in: times come in steps of one.
        assert!((one_way_ns - 26.0).abs() < 1.1 * machine.hit.atomic_ns, "{one_way_ns}");
        let transfer_ns = machine.transfer.matrix_ns.as_ref().expect("measured")[0][1];
        assert!((transfer_ns - 27.0).abs() < 0.01, "{transfer_ns}");
        assert_eq!((machine.name.as_str(), machine.core.pause_ns), ("host", 24.0));
        let addition_ns = contended_addition_ns(&machine, [0, 1]).expect("it runs");
        assert!((addition_ns - 12.0).abs() < 2.0, "{addition_ns}");
        assert!(machine.directory.migratory);
        assert_eq!((machine.core.restart_ns, machine.core.operation_ns), (4.5, 1.0));
        assert!((machine.core.disturbed_ns - 25.0).abs() < 0.01, "less the transfer of 27");
    }

    #[test]
    fn measurements_without_a_ping_pong_are_no_machine_and_no_panic() {
        let mut found = measured(26.0, 54.0);
        found.compare_exchange_ns = vec![vec![None; 2]; 2];
        assert!(matches!(found.machine(), Err(HostError::NoPingPong)));
        found.compare_exchange_ns.clear();
        assert!(matches!(found.machine(), Err(HostError::NoPingPong)));
        found.places.truncate(1);
        assert!(matches!(found.machine(), Err(HostError::OneCpu)));
    }

    #[test]
    fn a_load_that_takes_longer_than_an_addition_is_no_measurement() {
        // As a loop that is not optimised gives them: 4 ns of loop around each access.
        let mut found = measured(26.0, 54.0);
        found.alone.load_ns = 3.8;
        let error = found.machine().expect_err("a loop").to_string();
        assert!(
            error.starts_with("a load takes 3.80 ns here and an atomic addition 2.10"),
            "{error}"
        );
        let mut found = measured(26.0, 54.0);
        found.alone.store_ns = 4.4;
        let error = found.machine().expect_err("a loop").to_string();
        assert!(error.starts_with("a store takes 4.40 ns"), "{error}");
    }

    #[test]
    fn the_median_is_taken_figure_by_figure() {
        let mut all = [measured(20.0, 50.0), measured(30.0, 40.0), measured(25.0, 60.0)];
        all[1].alone.load_ns = 0.1;
        let median = Microbenchmarks::median_of(&all);
        assert_eq!(median.compare_exchange_ns[0][1], Some(25.0));
        assert_eq!(median.read_write_ns[1][0], Some(50.0));
        assert_eq!(median.alone.load_ns, 0.3);
    }
}
