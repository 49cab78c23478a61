//! What each design promises, written down by hand: a new design adds itself here.

use std::collections::BTreeSet;

use cellbench_impls::Errno;

use crate::scene::{Cancel, CancelAsync, Init, Op, Schedule, SetCallback, StartOp};

/// What a design promises about contexts.
pub(crate) struct Promise {
    /// `init` works in NMI context.
    pub(crate) init_in_nmi: bool,
    /// So does `set_callback`.
    pub(crate) update_in_nmi: bool,
    /// So do `start` and `cancel_and_free`.
    pub(crate) start_in_nmi: bool,
    /// Operations go on while another one stands still in the middle.
    pub(crate) lockless: bool,
    /// `set_callback` looks at the map's user count.
    pub(crate) update_needs_user: bool,
    /// `start` of a timer without a program is refused.
    pub(crate) start_needs_program: bool,
}

pub(crate) fn promise(id: &str) -> Promise {
    let base = Promise {
        init_in_nmi: false,
        update_in_nmi: false,
        start_in_nmi: false,
        lockless: true,
        update_needs_user: false,
        start_needs_program: true,
    };
    match id {
        "spin-tas" | "spin-queued" => Promise { lockless: false, update_needs_user: true, ..base },
        "rqspin" => Promise {
            lockless: false,
            update_needs_user: true,
            init_in_nmi: true,
            update_in_nmi: true,
            ..base
        },
        "cmpxchg-state" => Promise { start_needs_program: false, ..base },
        "cmpxchg-state-nmi" => Promise { update_in_nmi: true, start_needs_program: false, ..base },
        "mpmc-cell" | "seq-latch" | "cmd-queue" => {
            Promise { init_in_nmi: true, update_in_nmi: true, start_in_nmi: true, ..base }
        }
        _ => panic!("{id}: say here what the design promises"),
    }
}

/// Every error that a design may return, by operation.
pub(crate) fn errors(id: &str, kind: &str) -> BTreeSet<(Op, Errno)> {
    use Errno::{EBADF, EBUSY, EDEADLK, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, EPERM, ETIMEDOUT};
    let rows: &[(Op, &[Errno])] = match (kind, id) {
        ("task_work", "spin-tas" | "spin-queued") => {
            &[(Schedule, &[EPERM, EBADF, ENOMEM, EBUSY, EOPNOTSUPP])]
        }
        ("task_work", _) => &[(Schedule, &[EPERM, EBADF, ENOMEM, EBUSY])],
        (_, "spin-tas" | "spin-queued") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL, EOPNOTSUPP]),
            (SetCallback, &[EPERM, ENOENT, EINVAL, EOPNOTSUPP]),
            (StartOp, &[EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "rqspin") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL, EDEADLK]),
            (SetCallback, &[EPERM, ENOENT, EINVAL, EDEADLK, ETIMEDOUT]),
            (StartOp, &[EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "cmpxchg-state") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL, EOPNOTSUPP]),
            (SetCallback, &[EPERM, ENOENT, EBUSY, EINVAL, EOPNOTSUPP]),
            (StartOp, &[EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "cmpxchg-state-nmi") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL, EOPNOTSUPP]),
            (SetCallback, &[EPERM, ENOENT, EBUSY, EINVAL]),
            (StartOp, &[EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "mpmc-cell" | "seq-latch") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, EINVAL]),
            (StartOp, &[EBUSY, EINVAL]),
            (Cancel, &[EBUSY, EINVAL, EDEADLK]),
            (CancelAsync, &[EBUSY, EINVAL]),
        ],
        (_, "cmd-queue") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, EINVAL]),
            (StartOp, &[ENOENT, ENOMEM, EINVAL]),
            (Cancel, &[EINVAL, EDEADLK]),
            (CancelAsync, &[ENOENT, ENOMEM, EINVAL]),
        ],
        _ => panic!("{id} {kind}: say here what the design may return"),
    };
    let listed = rows.iter().flat_map(|(op, errnos)| errnos.iter().map(|errno| (*op, *errno)));
    // Cancelling where there is none; in NMI waiting is never possible.
    let refused: &[Op] = match (kind, id) {
        ("task_work", _) => &[Init, SetCallback, StartOp, Cancel, CancelAsync],
        ("timer", "mpmc-cell" | "seq-latch" | "cmd-queue") => &[Cancel],
        _ => &[Cancel, CancelAsync],
    };
    listed
        .filter(|(op, _)| kind == "timer" || !matches!(op, Cancel | CancelAsync))
        .chain(refused.iter().map(|op| (*op, EOPNOTSUPP)))
        .collect()
}
