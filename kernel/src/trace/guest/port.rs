//! The guest's ways to the host: markers that the plugin sees, the port of the debug console, and a watchdog
//! that raises NMIs.

use std::arch::asm;
use std::fmt::Write as _;
use std::io;

/// Port of QEMU's debug console.
pub(super) const PORT: u16 = 0xe9;
/// Port of the ib700 watchdog that sets its time: 15 stands for none.
const WATCHDOG: u16 = 0x443;
/// Markers of the plugin: instructions without effect, see `trace/trace.c`.
pub(super) mod marker {
    use std::arch::asm;

    macro_rules! marker {
        ($name:ident, $code:literal) => {
            #[inline(never)]
            pub(in super::super) fn $name() {
                // SAFETY: a no-operation with an address that is not accessed.
                unsafe {
                    asm!(
                        ".byte 0x0f, 0x1f, 0x84, 0x00",
                        concat!(".long 0x0ce11b00 + ", $code),
                        options(nostack, preserves_flags)
                    );
                }
            }
        };
    }
    marker!(ready, "0");
    marker!(begin, "1");
    marker!(end, "2");
    marker!(rest, "3");
}

/// The line to the host.
pub(super) struct Host {
    text: String,
}

impl Host {
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: asks for access to two ports, which nothing but this module uses.
        let granted =
            unsafe { libc::ioperm(PORT.into(), 1, 1) | libc::ioperm(WATCHDOG.into(), 1, 1) };
        match granted {
            0 => Ok(Self { text: String::new() }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn say(&mut self, line: std::fmt::Arguments<'_>) {
        // Formatting into a string does not fail.
        let _ = writeln!(self.text, "{line}");
        if self.text.len() >= 4096 {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        // SAFETY: access to the port was granted; the instruction reads the text and nothing else.
        unsafe {
            asm!(
                "rep outsb",
                in("dx") PORT,
                inout("rcx") self.text.len() => _,
                inout("rsi") self.text.as_ptr() => _,
                options(nostack, readonly, preserves_flags)
            );
        }
        self.text.clear();
    }
}

macro_rules! say {
    ($host:expr, $($arg:tt)*) => { $host.say(format_args!($($arg)*)) };
}
pub(super) use say;

/// Raises an NMI: the watchdog runs out at once, and the machine is told to make an NMI of that.
pub(super) fn raise_nmi() {
    // SAFETY: access to the port was granted; it belongs to a watchdog that nothing else uses.
    unsafe {
        asm!("out dx, al", in("dx") WATCHDOG, in("al") 0x0f_u8, options(nostack, nomem));
    }
}
