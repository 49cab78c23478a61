//! Ctrl-C: the first ends the run after what is being measured, with everything reported; the
//! second ends the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status of a process that the user interrupted, as shells have it (128 + SIGINT).
pub const EXIT_STATUS: u8 = 130;

/// Those that ctrlc takes over.
const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();

/// The user's wish to stop. One for the whole process, as the signal is.
#[derive(Clone, Copy, Debug)]
pub struct CtrlC(());

impl CtrlC {
    /// Takes over SIGINT, SIGTERM and SIGHUP, but for those that whoever started the process has it
    /// ignore (`nohup` does, and a shell for what it starts in the background); does nothing when
    /// done before.
    ///
    /// # Errors
    /// What the system said.
    pub fn install() -> Result<Self, String> {
        let install = || {
            let ignored: Vec<libc::c_int> =
                SIGNALS.into_iter().filter(|it| is_ignored(*it)).collect();
            let handled = ctrlc::set_handler(|| {
                // Relaxed: a flag that orders nothing.
                if REQUESTED.swap(true, Ordering::Relaxed) {
                    std::process::exit(i32::from(EXIT_STATUS));
                }
            });
            match handled {
                Ok(()) => {}
                // The handler has a thread of its own, which may be one too many.
                Err(ctrlc::Error::System(source))
                    if source.raw_os_error() == Some(libc::EAGAIN) =>
                {
                    SIGNALS.into_iter().for_each(handle_without_thread);
                }
                Err(error) => return Err(format!("cannot handle Ctrl-C: {error}")),
            }
            ignored.into_iter().for_each(ignore);
            Ok(())
        };
        INSTALLED.get_or_init(install).clone().map(|()| Self(()))
    }

    /// Returns whether the user wants to stop.
    #[must_use]
    pub fn is_requested(self) -> bool {
        REQUESTED.load(Ordering::Relaxed)
    }
}

/// Notes the wish, where the signal strikes.
extern "C" fn note(_: libc::c_int) {
    // Relaxed: a flag that orders nothing.
    if REQUESTED.swap(true, Ordering::Relaxed) {
        // SAFETY: async-signal-safe; nothing that is open needs an end.
        unsafe { libc::_exit(i32::from(EXIT_STATUS)) };
    }
}

/// Handles a signal on whatever thread it strikes.
fn handle_without_thread(signal: libc::c_int) {
    // SAFETY: a `sigaction` of zeros is a value of its type; `note` is async-signal-safe, and calls that it
    // interrupts go on.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

/// Returns whether the process ignores a signal.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: a `sigaction` of zeros is a value of its type, and the call only writes to it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Has the process ignore a signal.
fn ignore(signal: libc::c_int) {
    // SAFETY: no handler of ours runs for a signal that is ignored.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}
