//! Cache-coherence simulator: the code under test runs on virtual cores, cache line by cache line.
//!
//! A virtual core is a fiber; every access to a [`SimWord`] is a step of a discrete-event
//! simulation that knows which cache holds which line in which state, what a transfer between two
//! cores costs, and who queues at a line's directory. The result says not only how long things
//! took on a machine of 2 to several hundred cores, but which field of which structure moved.
//! It is a model: what it knows is written in the machine files, what it leaves out in
//! [`machine`] and [`protocol`].
//!
//! One trial, which counts on four cores of a desktop machine for ten microseconds:
//!
//! ```
//! use std::rc::Rc;
//! use std::sync::atomic::Ordering::SeqCst;
//! use cellbench_sim::{LineAligned, MachineModel, SimU64, Simulation, now_ns};
//!
//! let machine = MachineModel::preset("desktop")?;
//! let counter = Rc::new(LineAligned(SimU64::new("counter", 0)));
//! let mut simulation = Simulation::new(&machine, 1);
//! for core in 0..4 {
//!     let counter = Rc::clone(&counter);
//!     simulation.spawn(core, move || {
//!         while now_ns() < 10_000.0 {
//!             counter.fetch_add(1, SeqCst);
//!         }
//!     })?;
//! }
//! let report = simulation.run()?;
//! println!("{:.1} ns an addition", report.duration_ns / counter.peek() as f64);
//! println!("{}", report.totals);
//! assert_eq!(report.totals.rmws, counter.peek());
//! # Ok::<(), cellbench_sim::SimError>(())
//! ```
//!
//! It prints the time of an addition and the counters that are not zero: accesses, hits, transfers,
//! invalidations, time stalled. To run a lock or a cell of `cellbench-impls` in the same way, enable
//! that crate's feature `sim` and build the design on its simulated platform.
//!
//! # What code on a virtual core calls
//!
//! | call | meaning |
//! |---|---|
//! | [`SimWord`] operations | one access, charged by the coherence model |
//! | [`fence`] | a `SeqCst` fence drains the store buffer |
//! | [`pause`] | the spin-loop hint, charged |
//! | [`wait_until`], [`wait_until_deadline`] | sleep until a line that the condition read is invalidated |
//! | [`advance`] | local computation for some nanoseconds |
//! | [`advance_after_stall`] | the same, hidden behind accesses that hit |
//! | [`now_ns`], [`current_core`] | virtual clock and hardware thread of the caller |
//! | [`read_clock_ns`] | the clock, at the price of reading it |
//! | [`set_operation`], [`operation`] | the operation that accesses are attributed to |
//! | [`mask_interrupts`], [`unmask_interrupts`] | a nesting count, as `local_irq_disable` keeps one |
//! | [`send_interrupt`] | interrupt or NMI to a core, as an inter-processor interrupt |
//!
//! All of them work outside a running simulation too, where they cost nothing and `now_ns` is 0
//! (except waiting for something that nobody could change, which panics): a structure is set up
//! before the run, and inspected after it, by the very code that the cores run.
//!
//! # How time passes
//!
//! Code between two accesses takes no time, unless it says so by [`advance`]. An access takes what
//! the coherence model charges; a core that misses is left until its line has arrived. Every core
//! has its own clock, and accesses happen in the order of these clocks; a core runs ahead of the
//! others only as far as nothing that they do can reach it. All cores are fibers of one OS thread:
//! what is not a [`SimWord`] (a `Cell`, a `Vec`) can be shared between them freely, costs nothing,
//! and is ordered by the words that guard it, as plain memory is.
//!
//! # What a run depends on
//!
//! On machine, seed and code; not on addresses: lines are numbered in the order of first touch.
//! Which words share a line does depend on addresses, so whoever owns a structure aligns it to 64
//! bytes where that matters. Where the code itself takes another way by an address (a hash of a
//! pointer, say), runs differ.
//!
//! # Where to start reading
//!
//! | module | content |
//! |---|---|
//! | [`word`](SimWord), `perform`, `control`, `wait`, `attend` | calls of the simulated code, on its fiber |
//! | `world` | the machine in motion: routes events, chooses who runs next (`hit`, `issue`, `complete`: the life of an access; `requests`: lines on their way; `sleep`, `replay`: waiting) |
//! | `core` with `store_buffer`, `prefetch`, `waiter`, `replay`, `interrupt`, `pending` | one core and its parts |
//! | `directory` with `line`, `request`, `queue` | the lines, who holds them, who queues for them |
//! | `events` | what happens next |
//! | [`machine`], `costs`, [`calibrate`] | machines, and fitting them to measurements |
//! | `stats`, `timeline`, `summary`, [`report`] | counting, and the outcome |
//!
//! The parts of a core and the directory know nothing of `world`; each owns its data and the rules for
//! it.

mod access;
mod aligned;
mod attend;
mod bitset;
pub mod calibrate;
mod control;
mod core;
mod costs;
mod directory;
mod events;
mod fiber;
mod interrupt;
mod line;
pub mod machine;
mod pending;
mod perform;
mod prefetch;
pub mod primitive;
pub mod protocol;
mod queue;
mod replay;
pub mod report;
mod request;
mod rng;
mod simulation;
mod slot;
mod stats;
mod store_buffer;
mod summary;
mod thread;
mod timeline;
pub mod truth;
mod wait;
mod waiter;
mod word;
mod world;

pub use aligned::LineAligned;
pub use control::{
    OperationGuard, advance, advance_after_stall, current_core, fence, mask_interrupts, now_ns,
    operation, pause, read_clock_ns, send_interrupt, set_operation, unmask_interrupts,
};
pub use interrupt::{Interrupt, Trigger};
pub use machine::MachineModel;
pub use report::{End, Report};
pub use simulation::{SimError, Simulation};
pub use timeline::TimelineEvent;
pub use wait::{wait_until, wait_until_deadline};
pub use word::{Integer, SimPtr, SimU32, SimU64, SimUsize, SimWord, Value};
