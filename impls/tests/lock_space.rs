//! What each lock takes of memory: the size of a lock with what is behind its pointers, as the modules
//! say it. What a machine keeps per CPU for all locks is not in it.

use cellbench_impls::Lock;
use cellbench_impls::platform::Native;
use cellbench_impls::registry::{LOCKS, LockVisitor, visit_lock};

struct Space;

impl LockVisitor<Native> for Space {
    type Output = (usize, usize);

    fn visit<L: Lock<Native>>(self) -> (usize, usize) {
        (size_of::<L>(), L::space_bytes())
    }
}

/// Bytes in place, and with what is behind pointers. A padded node is two lines; the native platform
/// pads to 128 bytes on x86-64 and aarch64.
const SPACE: &[(&str, usize, usize)] = &[
    ("spin-tas", 4, 4),
    ("spin-queued", 4, 4),
    ("spin-queued-byte", 4, 4),
    ("spin-queued-pv", 4, 4),
    ("rqspin", 4, 4),
    ("rqspin-6.15", 4, 4),
    ("rqspin-byte", 4, 4),
    ("rqspin-tas", 4, 4),
    ("ticket", 8, 8),
    ("ticket-backoff", 8, 8),
    ("twa", 8, 8),
    ("mcs", 8, 8),
    ("clh", 8, 8 + 128),
    ("hemlock", 8, 8),
    ("hapax", 16, 16),
    ("reciprocating", 8, 8),
    ("cna", 4, 4),
    ("hmcs", 24, 24 + 8 * 256),
    ("shfllock", 16, 16),
    ("mcs-abortable", 16, 16),
    ("guard-try", 4, 4),
    ("futex-mutex", 4, 4),
    ("flat-combining", 16, 16),
    ("ccsynch", 8, 8 + 128),
];

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[test]
fn every_lock_takes_what_its_module_says() {
    for entry in LOCKS {
        let seen = visit_lock::<Native, _>(entry.id, Space).expect("registered");
        let said = SPACE.iter().find(|(id, ..)| *id == entry.id);
        let said = said.unwrap_or_else(|| panic!("{}: give its space in this table", entry.id));
        assert_eq!(seen, (said.1, said.2), "{}", entry.id);
    }
}
