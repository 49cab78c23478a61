//! Signals: who sends them, and the one handler that passes them on to their target.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use cellbench_impls::{Context, Platform};

use super::{Handler, Target};
use cellbench_host::affinity;
use cellbench_host::cpus::CpuSet;

/// A timer that signals its thread; gone when dropped, with the signals it had sent.
pub(crate) struct Timer<'a, 's, P: Platform> {
    id: libc::timer_t,
    _handler: &'s Handler<'a, P>,
}

impl<'a, 's, P: Platform> Timer<'a, 's, P> {
    /// Signals the calling thread `rate_hz` times a second.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start(handler: &'s Handler<'a, P>, rate_hz: u32) -> io::Result<Self> {
        install_handlers()?;
        // SAFETY: no memory is touched.
        let thread = unsafe { libc::gettid() };
        // SAFETY: zeroes are a valid `sigevent`.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal(handler.context);
        event.sigev_notify_thread_id = thread;
        event.sigev_value.sival_ptr = ptr::from_ref(handler).cast_mut().cast();
        let mut id = ptr::null_mut();
        // SAFETY: both pointers are valid for the call.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut id) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let timer = Self { id, _handler: handler };
        let period_ns = (1_000_000_000 / i64::from(rate_hz.max(1))).max(1);
        let period = libc::timespec {
            // As wide as the C library has it: musl is changing the name of that type.
            tv_sec: (period_ns / 1_000_000_000) as _,
            tv_nsec: (period_ns % 1_000_000_000) as libc::c_long,
        };
        let setting = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: the timer was made above; the setting is valid for the call.
        if unsafe { libc::timer_settime(timer.id, 0, &setting, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(timer)
    }
}

impl<P: Platform> Drop for Timer<'_, '_, P> {
    fn drop(&mut self) {
        // A signal that it sent before is delivered when this call returns to user space, at the
        // latest: the handler is still there.
        // SAFETY: made in `start`, deleted once.
        unsafe { libc::timer_delete(self.id) };
    }
}

thread_local! {
    /// Who is struck by signals of a [`Sender`]. Without a destructor, so that a handler may look.
    static TARGET: Cell<*const Target> = const { Cell::new(ptr::null()) };
}

/// Another thread that signals its maker by `pthread_kill`, each time as soon as the signal before
/// was handled: more than any timer can. Gone when dropped.
pub(crate) struct Sender<'a, 's, P: Platform> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _handler: &'s Handler<'a, P>,
}

impl<'a, 's, P: Platform> Sender<'a, 's, P> {
    /// Signals the calling thread, from whichever of `cpus` is free.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start(handler: &'s Handler<'a, P>, cpus: CpuSet) -> io::Result<Self> {
        install_handlers()?;
        TARGET.set(ptr::from_ref(handler).cast());
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, handled) = (Arc::clone(&stop), Arc::clone(&handler.handled));
        let number = signal(handler.context);
        // SAFETY: touches no memory.
        let receiver = unsafe { libc::pthread_self() } as usize;
        let send = move || {
            // Inherited from the pinned receiver otherwise, and one CPU takes turns then.
            let _ = affinity::set_current(&cpus);
            while !stopped.load(Ordering::Relaxed) {
                let before = handled.load(Ordering::Relaxed);
                // SAFETY: the receiver joins this thread before it ends.
                unsafe { libc::pthread_kill(receiver as libc::pthread_t, number) };
                let mut spins = 0_u32;
                while handled.load(Ordering::Relaxed) == before && !stopped.load(Ordering::Relaxed)
                {
                    spins += 1;
                    if spins.is_multiple_of(1024) {
                        thread::yield_now()
                    } else {
                        std::hint::spin_loop()
                    }
                }
            }
        };
        let thread = Some(thread::Builder::new().name("sender".to_owned()).spawn(send)?);
        Ok(Self { stop, thread, _handler: handler })
    }
}

impl<P: Platform> Drop for Sender<'_, '_, P> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A sender that panicked sends no more either.
            let _ = thread.join();
        }
        // A signal that is still on its way finds no target.
        TARGET.set(ptr::null());
    }
}

/// Source of the interruptions of a worker in one context.
pub(crate) enum SignalTimer<'a, 's, P: Platform> {
    /// So many times a second.
    Timed(#[expect(dead_code, reason = "deleted when dropped")] Timer<'a, 's, P>),
    /// As fast as it is handled.
    Sent(#[expect(dead_code, reason = "stopped when dropped")] Sender<'a, 's, P>),
}

impl<'a, 's, P: Platform> SignalTimer<'a, 's, P> {
    /// Interrupts the calling thread at this rate; 0: as fast as it is handled, by a thread on one
    /// of `cpus`.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start(
        handler: &'s Handler<'a, P>,
        rate_hz: u32,
        cpus: &CpuSet,
    ) -> io::Result<Self> {
        match rate_hz {
            0 => Sender::start(handler, cpus.clone()).map(Self::Sent),
            _ => Timer::start(handler, rate_hz).map(Self::Timed),
        }
    }
}

/// Returns the signal that stands for an interruption in `context`.
fn signal(context: Context) -> libc::c_int {
    match context {
        Context::Nmi => libc::SIGRTMIN() + 2,
        _ => libc::SIGRTMIN() + 1,
    }
}

/// Takes over both signals, once for the process: an NMI blocks both, a hardware interrupt itself.
fn install_handlers() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        for context in [Context::Hardirq, Context::Nmi] {
            // SAFETY: zeroes are a valid `sigaction`.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            // SAFETY: the set is valid for the calls.
            unsafe {
                libc::sigemptyset(&mut action.sa_mask);
                if context == Context::Nmi {
                    libc::sigaddset(&mut action.sa_mask, signal(Context::Hardirq));
                }
            }
            // SAFETY: the action is valid, its handler is async-signal-safe (see the module).
            if unsafe { libc::sigaction(signal(context), &action, ptr::null_mut()) } != 0 {
                return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
            }
        }
        Ok(())
    });
    (*installed).map_err(io::Error::from_raw_os_error)
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands in valid information.
    let info = unsafe { &*info };
    let target = match info.si_code {
        // SAFETY: a timer's signal carries a value.
        libc::SI_TIMER => unsafe { info.si_value() }.sival_ptr.cast_const().cast::<Target>(),
        libc::SI_TKILL => TARGET.get(),
        _ => return, // sent by another process: it carries no target
    };
    if target.is_null() {
        return;
    }
    // SAFETY: the address that `Timer::start` or `Sender::start` gave, of a handler that outlives it.
    unsafe { ((*target).interrupt)(target) };
}
