//! Locks of others exclude, and say whether they are held. With the feature `ck` those of Concurrency Kit
//! are among them.
#![cfg(feature = "peers")]

use std::cell::UnsafeCell;

use cellbench_impls::machine::MachineConfig;
use cellbench_impls::platform::Native;
use cellbench_impls::registry::{HasPeers, LockVisitor, PEERS};
use cellbench_impls::{CpuId, Lock, Machine};

/// Few sections: the holder of a fair lock may have to wait for a CPU.
const CPUS: u32 = 2;
const SECTIONS: u64 = 500;

/// A count that only its lock protects.
struct Count(UnsafeCell<u64>);

// SAFETY: used under the lock, which is what the test is to show.
unsafe impl Sync for Count {}

/// Several threads take a lock around the increments of a count.
struct Exclusion;

impl LockVisitor<Native> for Exclusion {
    type Output = u64;

    fn visit<L: Lock<Native>>(self) -> u64 {
        let machine = Machine::<Native>::new(MachineConfig::new(CPUS));
        let (lock, count) = (L::new(), Count(UnsafeCell::new(0)));
        assert!(!lock.is_held(), "{}: free at first", L::ID);
        std::thread::scope(|scope| {
            for number in 0..CPUS {
                let (machine, lock, count) = (&machine, &lock, &count);
                scope.spawn(move || {
                    let cpu = machine.cpu(CpuId(number));
                    for _ in 0..SECTIONS {
                        let held = lock.with(&cpu, || {
                            // SAFETY: the lock is held.
                            unsafe { *count.0.get() += 1 };
                            lock.is_held()
                        });
                        assert_eq!(held, Ok(true), "{}: held in the section", L::ID);
                    }
                });
            }
        });
        assert!(!lock.is_held(), "{}: free at the end", L::ID);
        count.0.into_inner()
    }
}

#[test]
fn peers_exclude() {
    for peer in PEERS {
        let counted = Native::visit_peer(peer.id, Exclusion).expect("listed");
        assert_eq!(counted, u64::from(CPUS) * SECTIONS, "{}", peer.id);
    }
}
