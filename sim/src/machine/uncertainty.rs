//! Machines within the uncertainty of a machine's figures.
//!
//! Each figure of a machine file has a source, and each kind of source an uncertainty. A result that
//! depends on a figure nobody published is as uncertain as that figure: simulated on machines that are
//! drawn here, the result shows by how much.

use super::{MachineModel, SourceKind};
use crate::rng::Rng;

impl SourceKind {
    /// Returns the share by which a figure may be wrong, up or down.
    ///
    /// Estimates: transfers between sockets that were estimated for Sapphire Rapids turned out 20 to
    /// 50 % high. Measured: two published figures for one addition on Graviton2 under contention, or two
    /// runs on one guest, differ by more; between calm runs of one host microbenchmarks differ by a
    /// twentieth to a tenth.
    #[must_use]
    pub fn uncertainty(self) -> f64 {
        match self {
            Self::Measured | Self::Vendor => 0.10,
            Self::Estimate => 0.30,
        }
    }
}

impl MachineModel {
    /// Returns a machine whose every figure is multiplied by a factor, drawn evenly on a logarithmic
    /// scale within the uncertainty of its source. One factor is for a whole matrix. Counts and
    /// yes-or-no figures stay: they are the structure of the model.
    #[must_use]
    pub fn drawn(&self, seed: u64) -> Self {
        // Not the stream that the simulation with this seed draws from.
        let mut rng = Rng::new(seed ^ 0x6d61_6368_696e_6573);
        let mut machine = self.clone();
        let mut draw = |field: &str| {
            let unit = rng.below(1 << 32) as f64 / (1_u64 << 32) as f64;
            (1.0 + self.uncertainty_of(field)).powf(2.0 * unit - 1.0)
        };
        let transfer = draw("transfer.same_llc_ns");
        if let Some(matrix) = &mut machine.transfer.matrix_ns {
            matrix.iter_mut().flatten().for_each(|ns| *ns *= transfer);
        }
        machine.transfer.same_llc_ns *= transfer;
        for (field, figure) in [
            ("hit.load_ns", &mut machine.hit.load_ns),
            ("hit.store_ns", &mut machine.hit.store_ns),
            ("hit.atomic_ns", &mut machine.hit.atomic_ns),
            ("hit.partial_store_ns", &mut machine.hit.partial_store_ns),
            ("hit.fence_ns", &mut machine.hit.fence_ns),
            ("transfer.cross_llc_ns", &mut machine.transfer.cross_llc_ns),
            ("transfer.cross_socket_ns", &mut machine.transfer.cross_socket_ns),
            ("fill.llc_ns", &mut machine.fill.llc_ns),
            ("fill.memory_ns", &mut machine.fill.memory_ns),
            ("fill.remote_memory_ns", &mut machine.fill.remote_memory_ns),
            ("directory.service_ns", &mut machine.directory.service_ns),
            ("directory.snoop_issue_ns", &mut machine.directory.snoop_issue_ns),
            ("directory.ownership_window_ns", &mut machine.directory.ownership_window_ns),
            ("core.pause_ns", &mut machine.core.pause_ns),
            ("core.restart_ns", &mut machine.core.restart_ns),
            ("core.disturbed_ns", &mut machine.core.disturbed_ns),
            ("core.clock_ns", &mut machine.core.clock_ns),
            ("core.operation_ns", &mut machine.core.operation_ns),
        ] {
            *figure *= draw(field);
        }
        for (field, share) in [
            ("directory.ownership_share", Some(&mut machine.directory.ownership_share)),
            ("directory.ownership_spread", Some(&mut machine.directory.ownership_spread)),
            ("directory.addition_share", machine.directory.addition_share.as_mut()),
        ] {
            let factor = draw(field);
            if let Some(share) = share {
                *share = (*share * factor).min(1.0);
            }
        }
        // Last, so that the machines without it are those that they were.
        if let Some(replay_ns) = &mut machine.core.replay_ns {
            *replay_ns *= draw("core.replay_ns");
        }
        for (field, part, absent) in [
            ("directory.drained_window", &mut machine.directory.drained_window, 1.0),
            ("core.atomic_locked", &mut machine.core.atomic_locked, 0.0),
        ] {
            if *part != absent {
                *part = (*part * draw(field)).min(1.0);
            }
        }
        machine
    }

    /// Returns the uncertainty of a figure: that of the source which names the field, or else its table;
    /// of a figure without a source that of an estimate.
    fn uncertainty_of(&self, field: &str) -> f64 {
        let table = field.split('.').next().unwrap_or(field);
        let named = |name: &str| {
            self.sources.iter().find(|source| source.fields.iter().any(|field| field == name))
        };
        let source = named(field).or_else(|| named(table));
        source.map_or(SourceKind::Estimate, |source| source.kind).uncertainty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_drawn_within_the_uncertainty_of_their_sources() {
        let machine = MachineModel::preset("graviton2").expect("built in");
        let mut atomics = Vec::new();
        let mut snoops = Vec::new();
        for seed in 1..=200 {
            let drawn = machine.drawn(seed);
            assert!(drawn.check("drawn").is_ok(), "{seed}");
            atomics.push(drawn.hit.atomic_ns / machine.hit.atomic_ns);
            snoops.push(drawn.directory.snoop_issue_ns / machine.directory.snoop_issue_ns);
        }
        let range = |all: &[f64]| {
            all.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)))
        };
        let ((low, high), (lowest, highest)) = (range(&atomics), range(&snoops));
        // The one is measured, the other an estimate.
        assert!(low >= 1.0 / 1.1 && high <= 1.1 && high / low > 1.15, "{low} to {high}");
        assert!(lowest >= 1.0 / 1.3 && highest <= 1.3 && highest / lowest > 1.5);
    }

    #[test]
    fn a_seed_is_a_machine_and_another_seed_another() {
        let machine = MachineModel::preset("xeon-8468-2s").expect("built in");
        assert_eq!(machine.drawn(7), machine.drawn(7));
        assert_ne!(machine.drawn(7), machine.drawn(8));
        assert_eq!(machine.drawn(7).core.run_ahead, machine.core.run_ahead);
    }
}
