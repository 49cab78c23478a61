//! Locks and async cells, each written once and run in three worlds.
//!
//! An *async cell* is what a BPF map value holds for a timer, a work item or a task work: one
//! pointer to a separately allocated *control block*, which names the callback, the program that
//! owns it, and whatever the kernel needs to run it later. Several CPUs initialise, update, start,
//! cancel and free the same cell at once, some of them from NMI. How those operations keep out of
//! each other's way was redesigned several times; this crate holds every design behind one trait.
//!
//! A lock in ten lines, and what a resilient one does that others cannot:
//!
//! ```
//! use cellbench_impls::lock::{mutex::Mutex, resilient::Resilient};
//! use cellbench_impls::machine::MachineConfig;
//! use cellbench_impls::platform::Native;
//! use cellbench_impls::{CpuId, Errno, Machine};
//!
//! let machine = Machine::<Native>::new(MachineConfig::new(1));
//! let balance = Mutex::<Native, Resilient<Native>, u64>::new(10);
//! let cpu = machine.cpu(CpuId(0));
//! *balance.lock(&cpu)? += 5;
//! let held = balance.lock(&cpu)?;
//! assert_eq!(*held, 15);
//! assert_eq!(balance.lock(&cpu).err(), Some(Errno::EDEADLK));
//! # Ok::<(), Errno>(())
//! ```
//!
//! Where to start reading:
//!
//! 1. [`platform`]: the atomics a design may use, and the worlds that supply them: real
//!    instructions, model checkers, a cache-coherence simulator.
//! 2. [`machine`]: what the kernel keeps per CPU, as a value. Every operation takes a
//!    [`Cpu`]: the CPU and the context it runs in.
//! 3. [`cell`]: the trait [`AsyncCell`], with its operations and their errors;
//!    [`cell::locked`] is the design everybody knows, [`cell::state`] the first without a lock.
//! 4. [`lock`]: the locks, from test-and-set to the resilient queued spinlock.
//! 5. [`registry`]: the one list of cells and locks. A new design is one file and one line there.
//!
//! What may not be done in this crate: no I/O, no threads, no statics, no thread-locals, no clock
//! other than the platform's. A machine is a value, so that hundreds of them can live side by
//! side in tests, model checkers and the simulator.

pub mod cell;
pub mod engine;
pub mod footprint;
pub mod heap;
pub mod irq_work;
pub mod lock;
pub mod machine;
pub mod map;
mod percpu;
pub mod platform;
pub mod program;
pub mod rcu;
pub mod registry;
mod selection;
pub mod source;
pub mod task;

#[cfg(feature = "planted")]
pub mod planted;

pub use cell::{AsyncCell, CellKind, Errno, Outcome};
pub use lock::Lock;
pub use machine::{Context, Cpu, CpuId, Machine};
pub use platform::{Memory, Platform};
