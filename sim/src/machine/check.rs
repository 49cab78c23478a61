//! Refuses machine files whose figures no machine can have, before they become odd results.

use super::{MACHINE_SCHEMA, MachineError, MachineModel, Topology};

/// More hardware threads than this is taken for a slip of the keyboard.
const MAX_THREADS: u64 = 4096;
/// A cost above this (a millisecond) is taken for a wrong unit.
const MAX_COST_NS: f64 = 1e6;

struct Checker<'a> {
    file: &'a str,
}

impl Checker<'_> {
    fn refuse(&self, field: &str, problem: String, advice: &str) -> MachineError {
        MachineError::Field {
            file: self.file.to_owned(),
            field: field.to_owned(),
            problem,
            advice: advice.to_owned(),
        }
    }

    fn range(&self, field: &str, value: f64, low: f64, high: f64) -> Result<(), MachineError> {
        if value >= low && value <= high {
            return Ok(());
        }
        let advice = format!("give a value from {low} to {high}");
        Err(self.refuse(field, format!("is {value}"), &advice))
    }

    /// Checks a cost that must be above zero: simulated time has to advance.
    fn cost(&self, field: &str, value: f64) -> Result<(), MachineError> {
        self.range(field, value, 0.01, MAX_COST_NS)
    }
}

impl MachineModel {
    pub(super) fn check(&self, file: &str) -> Result<(), MachineError> {
        let check = Checker { file };
        if self.schema != MACHINE_SCHEMA {
            let advice = format!("this version reads schema {MACHINE_SCHEMA}");
            return Err(check.refuse("schema", format!("is {}", self.schema), &advice));
        }
        if self.name.is_empty() {
            return Err(check.refuse("name", "is empty".to_owned(), "give the machine a name"));
        }
        self.check_topology(&check)?;
        self.check_matrix(&check)?;
        for (field, value) in [
            ("hit.load_ns", self.hit.load_ns),
            ("hit.store_ns", self.hit.store_ns),
            ("hit.atomic_ns", self.hit.atomic_ns),
            ("transfer.same_llc_ns", self.transfer.same_llc_ns),
            ("transfer.cross_llc_ns", self.transfer.cross_llc_ns),
            ("transfer.cross_socket_ns", self.transfer.cross_socket_ns),
            ("fill.llc_ns", self.fill.llc_ns),
            ("fill.memory_ns", self.fill.memory_ns),
            ("fill.remote_memory_ns", self.fill.remote_memory_ns),
            ("core.pause_ns", self.core.pause_ns),
        ] {
            check.cost(field, value)?;
        }
        for (field, value) in [
            ("hit.fence_ns", self.hit.fence_ns),
            ("hit.partial_store_ns", self.hit.partial_store_ns),
            ("directory.service_ns", self.directory.service_ns),
            ("directory.snoop_issue_ns", self.directory.snoop_issue_ns),
            ("directory.ownership_window_ns", self.directory.ownership_window_ns),
            ("core.restart_ns", self.core.restart_ns),
            ("core.replay_ns", self.core.replay_ns.unwrap_or(0.0)),
            ("core.disturbed_ns", self.core.disturbed_ns),
            ("core.clock_ns", self.core.clock_ns),
            ("core.operation_ns", self.core.operation_ns),
            ("core.interrupt_ns", self.core.interrupt_ns),
            ("core.context_switch_ns", self.core.context_switch_ns),
        ] {
            check.range(field, value, 0.0, MAX_COST_NS)?;
        }
        check.range("directory.ownership_share", self.directory.ownership_share, 0.0, 1.0)?;
        check.range("directory.ownership_spread", self.directory.ownership_spread, 0.0, 1.0)?;
        check.range("directory.drained_window", self.directory.drained_window, 0.0, 1.0)?;
        check.range("core.atomic_locked", self.core.atomic_locked, 0.0, 1.0)?;
        check.range("core.run_ahead", f64::from(self.core.run_ahead), 0.0, 64.0)?;
        check.range("core.smt_slowdown", self.core.smt_slowdown, 1.0, 8.0)?;
        check.range("core.jitter", self.core.jitter, 0.0, 0.5)?;
        check.range("store_buffer.entries", f64::from(self.store_buffer.entries), 1.0, 1024.0)
    }

    fn check_topology(&self, check: &Checker<'_>) -> Result<(), MachineError> {
        match &self.topology {
            &Topology::Uniform { sockets, llcs_per_socket, cores_per_llc, threads_per_core } => {
                for (field, value) in [
                    ("topology.sockets", sockets),
                    ("topology.llcs_per_socket", llcs_per_socket),
                    ("topology.cores_per_llc", cores_per_llc),
                    ("topology.threads_per_core", threads_per_core),
                ] {
                    check.range(field, f64::from(value), 1.0, MAX_THREADS as f64)?;
                }
                let threads = [llcs_per_socket, cores_per_llc, threads_per_core]
                    .iter()
                    .fold(u64::from(sockets), |product, &n| product.saturating_mul(u64::from(n)));
                if threads > MAX_THREADS {
                    let advice = format!("describe a machine of at most {MAX_THREADS}");
                    let problem = format!("describes {threads} hardware threads");
                    return Err(check.refuse("topology", problem, &advice));
                }
            }
            Topology::Listed { threads } => {
                if threads.is_empty() || threads.len() as u64 > MAX_THREADS {
                    let problem = format!("lists {} hardware threads", threads.len());
                    let advice = format!("list from 1 to {MAX_THREADS}");
                    return Err(check.refuse("topology.threads", problem, &advice));
                }
                for (number, place) in threads.iter().enumerate() {
                    let torn = threads[..number].iter().position(|other| {
                        (other.core == place.core && other.llc != place.llc)
                            || (other.llc == place.llc && other.socket != place.socket)
                    });
                    if let Some(other) = torn {
                        let problem = format!(
                            "puts threads {other} and {number} in one core or LLC, but not in one socket"
                        );
                        let advice = "number cores and LLCs over the whole machine";
                        return Err(check.refuse("topology.threads", problem, advice));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_matrix(&self, check: &Checker<'_>) -> Result<(), MachineError> {
        let Some(matrix) = &self.transfer.matrix_ns else { return Ok(()) };
        let places = self.places();
        let threads = places.len();
        let field = "transfer.matrix_ns";
        if matrix.len() != threads || matrix.iter().any(|row| row.len() != threads) {
            let problem = format!("is not {threads} rows of {threads}");
            let advice = "give one row and one column for each hardware thread of the topology";
            return Err(check.refuse(field, problem, advice));
        }
        for (from, row) in matrix.iter().enumerate() {
            for (to, &cost_ns) in row.iter().enumerate() {
                if places[from].core != places[to].core {
                    check.cost(&format!("{field}[{from}][{to}]"), cost_ns)?;
                }
            }
        }
        Ok(())
    }
}
