//! Operations that interrupt each other, at every step.

use std::cell::Cell;

use cellbench_impls::platform::stepped::interrupt_at;
use cellbench_impls::{AsyncCell, Context, Cpu, Errno};

use crate::scene::{CancelAsync, Free, Init, OPS, Op, P, Scene, Seen, SetCallback, StartOp};

/// Where an interruption comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Nmi,
    Hardirq,
    /// Another CPU gets so far while this one stands still.
    OtherCpu,
}

/// Interrupts every operation with every other one before each of its steps.
pub(crate) fn at_every_step<C: AsyncCell<P>>(seen: &Seen) {
    let promise = C::PROMISES;
    let scene = Scene::<C>::new(seen);
    let (cpu, other) = (scene.cpu(0), scene.cpu(1));
    for cpu in [&cpu, &other] {
        C::reserve(cpu, 64);
    }
    for outer in OPS {
        for inner in OPS {
            for from in [From::Nmi, From::Hardirq, From::OtherCpu] {
                // Freeing has no way to refuse: a design that cannot do it in NMI must not be
                // asked to. A lock that is held by what stands still is not waited for here.
                let hangs = match from {
                    From::Nmi => inner == Free && !promise.start_in_nmi,
                    From::Hardirq => false,
                    From::OtherCpu => !promise.lockless,
                };
                if !hangs {
                    interrupt(&scene, [&cpu, &other], outer, inner, from);
                }
            }
        }
    }
}

/// Runs a program that starts or cancels the same cell at a tracepoint that a command's execution passes:
/// EDEADLK, or commands would queue commands without end (64873307e888).
pub(crate) fn recursion<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    C::reserve(&cpu, 64);
    scene.make_ready(&cpu);
    for inner in [StartOp, CancelAsync] {
        let mut refused = false;
        for step in 0.. {
            let irq_off = cpu.irq_save();
            assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
            let nested = || {
                let _ = cpu.nmi(|nmi| {
                    let outcome = scene.perform(nmi, inner);
                    refused |= outcome == Err(Errno::EDEADLK);
                    outcome
                });
            };
            let ((), fired) = interrupt_at(step, nested, || drop(irq_off));
            cpu.quiescent();
            if !fired {
                break;
            }
        }
        assert_eq!(refused, inner == StartOp || C::CANCELS_ASYNC, "{inner:?} was never refused");
    }
    scene.rest(&cpu);
}

fn interrupt<C: AsyncCell<P>>(
    scene: &Scene<'_, C>,
    [cpu, other]: [&Cpu<'_, P>; 2],
    outer: Op,
    inner: Op,
    from: From,
) {
    for step in 0.. {
        if outer != Init {
            scene.make_ready(cpu);
        }
        let interrupted = Cell::new(false);
        let handler = || {
            if from == From::Nmi {
                interrupted.set(true);
                let _ = cpu.nmi(|nmi| scene.perform(nmi, inner));
            } else if cpu.irq_depth() == 0 {
                // Interrupts are on, and the engine's own locks, which others wait for, free.
                interrupted.set(true);
                let _ = match from {
                    From::Hardirq => scene.perform(&cpu.interrupted(Context::Hardirq), inner),
                    _ => scene.perform(other, inner),
                };
            }
        };
        let (result, fired) = interrupt_at(step, handler, || scene.perform(cpu, outer));
        if !interrupted.get() {
            let name = format!("{outer:?} with nobody in its way: {result:?}");
            let allowed = matches!(result, Ok(_) | Err(Errno::EOPNOTSUPP));
            assert!(allowed, "{name}");
        }
        cpu.run_irq_works();
        scene.rest(cpu);
        if !fired {
            assert!(step > 0 || !matches!(outer, Init | SetCallback | StartOp));
            return;
        }
    }
}

/// Checks that a resilient lock is not waited for for ever where its holder stands still.
pub(crate) fn times_out<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let (cpu, other) = (scene.cpu(0), scene.cpu(1));
    scene.make_ready(&cpu);
    let mut timed_out = false;
    for step in 0.. {
        let handler = || {
            if scene.cell.is_occupied(&cpu) {
                timed_out = true;
                assert_eq!(scene.perform(&other, SetCallback), Err(Errno::ETIMEDOUT));
            }
        };
        let (result, fired) = interrupt_at(step, handler, || scene.perform(&cpu, SetCallback));
        assert_eq!(result, Ok(true), "step {step}");
        if timed_out || !fired {
            break;
        }
    }
    assert!(timed_out, "no step had the lock held");
    scene.rest(&cpu);
}
