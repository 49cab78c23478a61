//! Threads that are there together, or not at all.
//!
//! A thread cannot always be started: a user's or a container's limit on processes may be reached.
//! Whoever met the others at a barrier would then wait for ever, so the threads here begin only when
//! all of them exist.

use std::fmt;
use std::fs;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// A thread could not be started. The message names the limits on processes.
#[derive(Debug)]
pub struct NoThread {
    /// Error of the operating system.
    pub source: io::Error,
}

impl NoThread {
    /// Writes the message where a process may have so much memory.
    fn write(&self, f: &mut fmt::Formatter<'_>, memory_bytes: Option<u64>) -> fmt::Result {
        write!(f, "a thread cannot be started ({}); raise the limit on processes: ", self.source)?;
        match soft_limit(libc::RLIMIT_NPROC) {
            Some(limit) => write!(f, "`ulimit -u` is {limit}")?,
            None => write!(f, "`ulimit -u` is unlimited")?,
        }
        if let Some(limit) = cgroup_limit() {
            write!(f, ", pids.max of the cgroup is {limit}")?;
        }
        // The stack of a thread that does not fit is refused with the same error.
        match memory_bytes {
            Some(bytes) => write!(f, "; or that on memory: `ulimit -v` is {}", bytes / 1024),
            None => Ok(()),
        }
    }
}

impl fmt::Display for NoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, soft_limit(libc::RLIMIT_AS))
    }
}

impl std::error::Error for NoThread {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<io::Error> for NoThread {
    fn from(source: io::Error) -> Self {
        Self { source }
    }
}

/// A resource, as the C library takes it.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
/// A resource, as the C library takes it.
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Returns the limit of this process on a resource; `None` if there is none.
fn soft_limit(resource: Resource) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to `limit` alone.
    let known = unsafe { libc::getrlimit(resource, &raw mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Returns the limit of this process's cgroup (version 2); `None` if there is none.
fn cgroup_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    fs::read_to_string(format!("/sys/fs/cgroup{group}/pids.max")).ok()?.trim().parse().ok()
}

/// Whether the threads that are to begin together may.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Wait,
    Go,
    GiveUp,
}

/// Runs `job` on `count` threads at the same time, each with its number; returns what they
/// returned, by
/// number. None begins before all are there. A panic of a job is passed on.
///
/// # Errors
/// [`NoThread`] if one could not be started; no job has run then.
pub fn together<T: Send>(
    count: usize,
    job: impl Fn(usize) -> T + Sync,
) -> Result<Vec<T>, NoThread> {
    let start = (Mutex::new(Start::Wait), Condvar::new());
    let decide = |decision| {
        *start.0.lock().unwrap_or_else(PoisonError::into_inner) = decision;
        start.1.notify_all();
    };
    let may_begin = || {
        let waiting = start.0.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = start.1.wait_while(waiting, |start| *start == Start::Wait);
        *decided.unwrap_or_else(PoisonError::into_inner) == Start::Go
    };
    let (job, may_begin) = (&job, &may_begin);
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let body = move || may_begin().then(|| job(number));
            match thread::Builder::new().spawn_scoped(scope, body) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    decide(Start::GiveUp);
                    return Err(NoThread { source });
                }
            }
        }
        decide(Start::Go);
        let outcomes = threads.into_iter().map(|thread| {
            let outcome = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome.expect("all were told to begin")
        });
        Ok(outcomes.collect())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn jobs_meet_and_their_results_come_in_order() {
        let meeting = Barrier::new(3);
        let found = together(3, |number| {
            meeting.wait();
            number * 10
        });
        assert_eq!(found.unwrap(), [0, 10, 20]);
    }

    #[test]
    fn the_message_names_a_limit() {
        let text = NoThread::from(io::Error::from_raw_os_error(libc::EAGAIN)).to_string();
        assert!(text.contains("ulimit -u") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn a_limit_on_memory_is_named_too() {
        /// The message where a process may have 36 MB.
        struct Limited(NoThread);
        impl fmt::Display for Limited {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(f, Some(36_000 << 10))
            }
        }
        let text = Limited(io::Error::from_raw_os_error(libc::EAGAIN).into()).to_string();
        assert!(text.ends_with("; or that on memory: `ulimit -v` is 36000"), "{text}");
    }
}
