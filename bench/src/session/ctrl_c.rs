//! Ctrl-C: the first ends the run after what is being measured, with everything reported; the
//! second ends the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status of a process that the user interrupted, as shells have it (128 + SIGINT).
pub const EXIT_STATUS: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();

/// The user's wish to stop. One for the whole process, as the signal is.
#[derive(Clone, Copy, Debug)]
pub struct CtrlC(());

impl CtrlC {
    /// Takes over SIGINT, SIGTERM and SIGHUP; does nothing when done before.
    ///
    /// # Errors
    /// What the system said.
    pub fn install() -> Result<Self, String> {
        let install = || {
            ctrlc::set_handler(|| {
                // Relaxed: a flag that orders nothing.
                if REQUESTED.swap(true, Ordering::Relaxed) {
                    std::process::exit(i32::from(EXIT_STATUS));
                }
            })
            .map_err(|error| format!("cannot handle Ctrl-C: {error}"))
        };
        INSTALLED.get_or_init(install).clone().map(|()| Self(()))
    }

    /// Whether the user wants to stop.
    #[must_use]
    pub fn is_requested(self) -> bool {
        REQUESTED.load(Ordering::Relaxed)
    }
}
