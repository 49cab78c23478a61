//! Cache-coherence simulator: the code under test runs on virtual cores, cache line by cache line.
//!
//! A virtual core is a fiber; every access to a [`SimWord`] is a step of a discrete-event
//! simulation that knows which cache holds which line in which state, what a transfer between two
//! cores costs, and who queues at a line's directory. The result says not only how long things
//! took on a machine of 2 to several hundred cores, but which field of which structure moved.
//! It is a model: what it knows is written in the machine files, what it leaves out in
//! [`machine`] and [`protocol`].
//!
//! ```
//! use std::rc::Rc;
//! use std::sync::atomic::Ordering::SeqCst;
//! use cellbench_sim::{MachineModel, SimU64, Simulation, now_ns};
//!
//! let machine = MachineModel::preset("desktop")?;
//! let counter = Rc::new(SimU64::new("counter", 0));
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
//! assert_eq!(report.totals.rmws, counter.peek());
//! # Ok::<(), cellbench_sim::SimError>(())
//! ```
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
//! [`word`](SimWord) is what the code sees; `access` decides what certainly hits, `issue` what waits,
//! `complete` what it is charged; `directory` moves lines; `run_ahead` says what a waiting core asks
//! for besides; `wait` and `interrupt` are what else stops a core (`reread` is waiting without the
//! fiber); `world` chooses who runs next. [`machine`] describes machines, [`calibrate`] fits them to
//! measurements, [`report`] is the outcome.

mod access;
pub mod calibrate;
mod complete;
mod control;
mod core;
mod costs;
mod directory;
mod events;
mod fiber;
mod interrupt;
mod issue;
mod line;
pub mod machine;
pub mod protocol;
mod queue;
pub mod report;
mod reread;
mod rng;
mod run_ahead;
mod simulation;
mod stats;
mod store_buffer;
mod summary;
mod thread;
mod timeline;
mod wait;
mod word;
mod world;

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
