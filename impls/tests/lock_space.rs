//! Memory of each lock: the size of a lock with what is behind its pointers, as the table of
//! docs/locks.md says it. What a machine keeps per CPU for all locks is not in it.

// A padded node is two lines where the native platform pads to 128 bytes.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]

#[expect(dead_code, reason = "lock_scale holds the other columns")]
mod lock_table;

use cellbench_impls::Lock;
use cellbench_impls::platform::Native;
use cellbench_impls::registry::{LOCKS, LockVisitor, visit_lock};

struct Space;

impl LockVisitor<Native> for Space {
    type Output = usize;

    fn visit<L: Lock<Native>>(self) -> usize {
        L::space_bytes()
    }
}

#[test]
fn the_table_has_every_lock_and_what_it_takes() {
    let rows = lock_table::rows();
    let said: Vec<_> = rows.iter().map(|row| (row.lock.as_str(), row.space.as_str())).collect();
    let seen = |id| visit_lock::<Native, _>(id, Space).expect("registered").to_string();
    let seen: Vec<_> = LOCKS.iter().map(|lock| (lock.id, seen(lock.id))).collect();
    let seen: Vec<_> = seen.iter().map(|(id, space)| (*id, space.as_str())).collect();
    assert_eq!(said, seen, "docs/locks.md, and what the locks take");
}
