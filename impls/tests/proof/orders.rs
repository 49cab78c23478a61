//! Commands that wait for an `irq_work` are executed in the order in which they were given.

use cellbench_impls::AsyncCell;
use cellbench_impls::platform::{Loom, loom::advance_ns};
use cellbench_impls::registry::CellVisitor;
use cellbench_impls::{CpuId, Errno};

use crate::arena::{Arena, Setup};
use crate::explore::{Bound, explore};
use crate::history::Op;

/// With interrupts off starts a cell and cancels it, and the other way round.
pub(crate) struct Commands {
    /// A known bug to switch on.
    pub(crate) bug: Option<cellbench_impls::planted::Bug>,
}

impl CellVisitor<Loom> for Commands {
    type Output = ();
    fn visit<C: AsyncCell<Loom>>(self) {
        explore(Bound::new(0), move || {
            for (ops, runs) in
                [([Op::Start, Op::CancelAsync], 0), ([Op::CancelAsync, Op::Start], 1)]
            {
                advance_ns(1);
                let arena = Arena::<Loom, C>::new(Setup { bug: self.bug, ..Setup::new(1) });
                arena.prepare(&[Op::Init, Op::Set(0)]);
                {
                    let cpu = arena.machine.cpu(CpuId(0));
                    {
                        let _irq_off = cpu.irq_save();
                        for op in ops {
                            let reply = arena.perform(&cpu, op);
                            // Left to the `irq_work`, where the design can say so.
                            let left = reply == Err(Errno::ECANCELED);
                            assert!(reply.is_ok() || left, "{op}: {reply:?}");
                        }
                    }
                    let _ = arena.perform(&cpu, Op::Fire);
                }
                let ran = arena.runs();
                let last = ops[1];
                assert!(ran >= runs, "started last ({last}), and did not run");
                assert!(ran <= runs, "cancelled, and ran");
                arena.check_rest();
            }
        });
    }
}
