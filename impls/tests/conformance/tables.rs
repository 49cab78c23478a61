//! Every error that each design may return, written down by hand: a new design adds itself here.
//! What the errors do not say, [`Promises`](cellbench_impls::cell::Promises) does.

use std::collections::BTreeSet;

use cellbench_impls::Errno;
use cellbench_impls::cell::CellKind::{self, TaskWork, Timer};

use crate::scene::{Cancel, CancelAsync, Init, Op, Schedule, SetCallback, StartOp};

/// Returns every error that a design may return, by operation.
pub(crate) fn errors(id: &str, kind: CellKind, cancels_async: bool) -> BTreeSet<(Op, Errno)> {
    use Errno::{
        EBADF, EBUSY, ECANCELED, EDEADLK, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, EPERM, ETIMEDOUT,
    };
    let rows: &[(Op, &[Errno])] = match (kind, id) {
        (TaskWork, "spin-tas" | "spin-queued") => {
            &[(Schedule, &[EPERM, EBADF, ENOMEM, EBUSY, EOPNOTSUPP])]
        }
        // As merged: a task that is gone is EBADF.
        (TaskWork, "task-work") => &[(Schedule, &[EBADF, ENOMEM, EBUSY])],
        (TaskWork, _) => &[(Schedule, &[EPERM, EBADF, ENOMEM, EBUSY])],
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
        (_, "mpmc-cell" | "seq-latch" | "seq-latch-v4" | "seq-latch-v6") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, EINVAL]),
            (StartOp, &[EBUSY, EINVAL]),
            (Cancel, &[EINVAL, EDEADLK]),
            (CancelAsync, &[EBUSY, EINVAL]),
        ],
        (_, "cmd-queue" | "cmd-queue-xchg") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, EINVAL]),
            (StartOp, &[ENOENT, ENOMEM, EINVAL, EDEADLK]),
            (Cancel, &[EINVAL, EDEADLK]),
            (CancelAsync, &[EPERM, ENOENT, ENOMEM, EINVAL, EDEADLK, ECANCELED]),
        ],
        (_, "rcu-pair") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, ENOMEM, EINVAL]),
            (StartOp, &[ENOENT, EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "cas16-pair") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, EINVAL]),
            (StartOp, &[ENOENT, EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "seqlock-pair") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, EINVAL, EOPNOTSUPP]),
            (StartOp, &[ENOENT, EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        // Neither has a count that could be 0.
        (_, "rcu-alone" | "hazard-ref") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, EINVAL]),
            (StartOp, &[EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "percpu-ref") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL, EOPNOTSUPP]),
            (SetCallback, &[ENOENT, EINVAL]),
            (StartOp, &[ENOENT, EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        _ => panic!("{id} {kind}: say here what the design may return"),
    };
    let listed = rows.iter().flat_map(|(op, errnos)| errnos.iter().map(|errno| (*op, *errno)));
    // Cancelling where there is none; in NMI waiting is never possible.
    let refused: &[Op] = match (kind, id) {
        (TaskWork, _) => &[Init, SetCallback, StartOp, Cancel, CancelAsync],
        (Timer, _) if cancels_async => &[Cancel],
        _ => &[Cancel, CancelAsync],
    };
    listed
        .filter(|(op, _)| kind == Timer || !matches!(op, Cancel | CancelAsync))
        .chain(refused.iter().map(|op| (*op, EOPNOTSUPP)))
        .collect()
}
