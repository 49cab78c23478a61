//! The resilient queued spinlock: a queued spinlock that gives up instead of hanging.
//!
//! It finds a lock taken twice on one CPU (AA), two CPUs that wait for each other (ABBA) within
//! milliseconds by their tables of held locks ([`super::held`]), and everything else by a timeout. A
//! waiter that fails leaves lock and table as if it had not come. (Dwivedi and Starovoitov's
//! rqspinlock, `kernel/bpf/rqspinlock.c`.)
//!
//! It changed from release to release, in what those see who fail; see [`Generation`]. Each generation
//! is consistent in itself, with the faults that it has:
//!
//! | | 6.15 to 6.18 | 6.19 to 7.1 | 7.2 |
//! |---|---|---|---|
//! | entry in the table | after the fast path | before it | before it |
//! | AA is looked for | with ABBA, after a millisecond | as a wait begins, and before queueing | as 6.19 |
//! | without a node, or in NMI | spins on the lock, until a timeout | one attempt, then EDEADLK | as 6.19 |
//! | the head finds a deadlock | the whole queue fails | hands the queue on | as 6.19 |
//! | that head is the last one | leaves | waits for ever | leaves |
//! | who is told to fail | EDEADLK | ETIMEDOUT | ETIMEDOUT |
//!
//! The clock is read once in 65 536 spins, as the kernel's 16-bit counter has it.

use core::marker::PhantomData;

use super::held::{is_cycle, is_held_here, leave_failed};
use super::queued::{
    Claim, Form, LOCKED_MASK, LOCKED_PENDING, QueueNode, QueuedWord, WordForm, announce,
    decode_tail, encode_tail, hand_on, wait_for_next, wait_for_turn,
};
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, LOCK_TIMEOUT_NS, planted};
use crate::platform::{Memory, Ordering, Platform, Word};

/// How long the head of the queue waits, in time-outs of the machine: the owner and the pending waiter,
/// which wait for one each, may both be ahead.
const HEAD_TIMEOUTS: u64 = 2;
/// How long the test-and-set form waits.
const TAS_TIMEOUTS: u64 = 4;
/// How long the head of the queue waits on a machine with the kernel's time-out.
pub const HEAD_TIMEOUT_NS: u64 = HEAD_TIMEOUTS * LOCK_TIMEOUT_NS;
/// How long the test-and-set form waits there.
pub const TAS_TIMEOUT_NS: u64 = TAS_TIMEOUTS * LOCK_TIMEOUT_NS;
/// How often a waiter looks for an ABBA deadlock.
pub const CYCLE_CHECK_NS: u64 = 1_000_000;
/// Spins between two looks at the clock.
const SPINS_BETWEEN_LOOKS: u32 = 1 << 16;

/// [`QueueNode::turn`]: the waiter in front failed; fail too.
const FAIL: u32 = 2;

/// In what the releases of the kernel differ.
pub trait Generation: Send + Sync + 'static {
    /// Name of the lock in the kernel's form.
    const ID: &'static str;
    /// The entry in the table is made before the fast path (beb7021a6003), AA is looked for at once
    /// (5860f5ce479f, 087849cca31d), and an NMI queues unless it interrupts a waiter
    /// (81d5a6a43859).
    const EARLY: bool;
    /// Who has no node tries once (30dc2f7025fe).
    const TRIES_ONCE: bool;
    /// A head that finds a deadlock hands the queue on (7bd6e5ce5be6).
    const HANDS_ON: bool;
    /// It leaves where nobody is behind it (7a3c0289c3c8).
    const LONE_HEAD_LEAVES: bool;
    /// Error that those return whom the one in front tells to fail.
    const TOLD: Errno;
}

/// Linux 6.15 to 6.18, with 0d80e7f951be: an NMI does not queue.
pub struct V615;
/// Linux 6.19 to 7.1.
pub struct V619;
/// Linux 7.2.
pub struct V72;

impl Generation for V615 {
    const ID: &'static str = "rqspin-6.15";
    const EARLY: bool = false;
    const TRIES_ONCE: bool = false;
    const HANDS_ON: bool = false;
    const LONE_HEAD_LEAVES: bool = true;
    const TOLD: Errno = Errno::EDEADLK;
}

impl Generation for V619 {
    const ID: &'static str = "rqspin-6.19";
    const EARLY: bool = true;
    const TRIES_ONCE: bool = true;
    const HANDS_ON: bool = true;
    const LONE_HEAD_LEAVES: bool = false;
    const TOLD: Errno = Errno::ETIMEDOUT;
}

impl Generation for V72 {
    const ID: &'static str = "rqspin";
    const EARLY: bool = true;
    const TRIES_ONCE: bool = true;
    const HANDS_ON: bool = true;
    const LONE_HEAD_LEAVES: bool = true;
    const TOLD: Errno = Errno::ETIMEDOUT;
}

/// The seldom condition of a wait: deadlock checks and timeout (`check_timeout`).
struct Patience<'a, 'm, P: Platform> {
    cpu: &'a Cpu<'m, P>,
    lock: *mut (),
    timeouts: u64,
    /// When the wait began and when a cycle was last looked for; `None` before the first check.
    began_ns: Option<u64>,
    checked_ns: u64,
}

impl<'a, 'm, P: Platform> Patience<'a, 'm, P> {
    fn new(cpu: &'a Cpu<'m, P>, lock: *mut (), timeouts: u64) -> Self {
        Self { cpu, lock, timeouts, began_ns: None, checked_ns: 0 }
    }

    /// Returns why to give up, if there is a reason. `released` tells that the lock became free.
    fn lost<G: Generation>(&mut self, released: impl FnMut() -> bool) -> Option<Errno> {
        let Some(began_ns) = self.began_ns else {
            if G::EARLY && is_held_here(self.cpu, self.lock) {
                return Some(Errno::EDEADLK);
            }
            let now_ns = P::now_ns();
            self.began_ns = Some(now_ns);
            self.checked_ns = now_ns;
            return None;
        };
        let now_ns = P::now_ns();
        if now_ns - began_ns > self.timeouts * self.cpu.machine().config().lock_timeout_ns {
            return Some(Errno::ETIMEDOUT);
        }
        if now_ns - self.checked_ns <= CYCLE_CHECK_NS {
            if planted!(self.cpu, CycleCheckRestarts) {
                self.checked_ns = now_ns;
            }
            return None;
        }
        self.checked_ns = now_ns;
        let found = !G::EARLY && is_held_here(self.cpu, self.lock)
            || is_cycle(self.cpu, self.lock, released);
        found.then_some(Errno::EDEADLK)
    }
}

/// See the module.
pub struct Resilient<P: Memory, F = WordForm, G = V72> {
    pub(super) word: QueuedWord<P, F>,
    generation: PhantomData<fn() -> G>,
}

/// The kernel's form of a generation.
pub type Of<P, G> = Resilient<P, WordForm, G>;

impl<P: Platform, F: Form, G: Generation> Lock<P> for Resilient<P, F, G> {
    const ID: &'static str = match F::RESILIENT {
        Some(id) => id,
        None => G::ID,
    };
    const FALLIBLE: bool = true;

    fn new() -> Self {
        Self { word: QueuedWord::new(), generation: PhantomData }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.word.is_locked()
    }
}

impl<P: Platform, F: Form, G: Generation> RawLock<P> for Resilient<P, F, G> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        if G::EARLY {
            // Before the attempt: an NMI that arrives after it must find the entry.
            cpu.this.held.enter(self.address());
        }
        match self.word.try_fast() {
            Ok(()) => {
                if !G::EARLY {
                    cpu.this.held.enter(self.address());
                }
                Ok(())
            }
            Err(found) => self.acquire_slow(cpu, found),
        }
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        let held = &cpu.this.held;
        let early = G::EARLY && !planted!(cpu, EntryClearedFirst);
        if !early {
            held.clear_newest();
        }
        // Before the entry is cleared, since 6.19: an NMI in between that wants the lock finds an entry
        // for a free lock, and fails; the other way round it would wait for a lock that nobody seems to
        // hold.
        self.word.release();
        if early {
            held.clear_newest();
        }
        held.leave();
    }
}

impl<P: Platform, F: Form, G: Generation> Resilient<P, F, G> {
    #[inline(always)]
    fn address(&self) -> *mut () {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>, found: u32) -> Result<(), Errno> {
        let pending = self.word.set_pending(found);
        if !G::EARLY {
            cpu.this.held.enter(self.address());
        }
        let acquired = match pending {
            Some(before) => self.acquire_pending(cpu, before),
            None => self.acquire_queued(cpu),
        };
        if acquired.is_err() {
            leave_failed(cpu);
        }
        acquired
    }

    /// Goes on as the pending waiter; the word was `before` when the bit was set.
    fn acquire_pending(&self, cpu: &Cpu<'_, P>, before: u32) -> Result<(), Errno> {
        if self.word.take_unlocked(before) {
            return Ok(());
        }
        let mut patience = Patience::new(cpu, self.address(), 1);
        let waited = P::wait_until_or_every(
            SPINS_BETWEEN_LOOKS,
            || self.word.try_pending().then_some(Ok(())),
            || patience.lost::<G>(|| self.word.is_released(LOCKED_MASK)).map(Err),
        );
        if waited.is_err() && !planted!(cpu, PendingLeft) {
            self.word.clear_pending();
        }
        waited
    }

    fn acquire_queued(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        // A waiter in the queue cannot look: one that waited there for its own CPU's interrupted
        // pending waiter would keep the head in front of it from the lock until that timed out.
        if G::EARLY && !planted!(cpu, QueuesBehindItself) && is_held_here(cpu, self.address()) {
            return Err(Errno::EDEADLK);
        }
        let claim = Claim::new(cpu);
        // An NMI over a waiter of its own CPU stays out of the queues. That waiter may be the head of
        // one and cannot watch the clock meanwhile; two NMIs that wait, each behind the other's
        // interrupted head, would wait for ever.
        if cpu.in_nmi() && (!G::EARLY || claim.level > 0) && !planted!(cpu, NmiQueues) {
            return self.acquire_without_node(cpu);
        }
        let Some(node) = claim.node() else { return self.acquire_without_node(cpu) };
        // The lock may have become free while the node was made ready.
        if self.word.try_acquire() {
            return Ok(());
        }
        let tail = encode_tail(cpu.id(), claim.level);
        let front = self.word.swap_tail(tail);
        if let Some(front) = decode_tail(cpu.machine(), front) {
            announce(front, node);
            // Only the head watches the clock: its timeout reaches those behind it.
            if wait_for_turn(node) == FAIL {
                self.leave_queue(cpu, node, tail);
                return Err(G::TOLD);
            }
        }
        let mut patience = Patience::new(cpu, self.address(), HEAD_TIMEOUTS);
        let waited = P::wait_until_or_every(
            SPINS_BETWEEN_LOOKS,
            || self.word.try_head(tail).map(Ok),
            || patience.lost::<G>(|| self.word.is_released(LOCKED_PENDING)).map(Err),
        );
        match waited {
            Ok(last) => {
                if !last {
                    hand_on(node);
                }
                Ok(())
            }
            Err(Errno::EDEADLK) if G::HANDS_ON => {
                let leaves = G::LONE_HEAD_LEAVES && !planted!(cpu, LoneHeadWaits);
                if !(leaves && self.word.try_remove_tail(tail)) {
                    hand_on(node);
                }
                Err(Errno::EDEADLK)
            }
            Err(errno) => {
                self.leave_queue(cpu, node, tail);
                Err(errno)
            }
        }
    }

    /// Leaves, as the head of the queue, without the lock: takes the tail away if it is the last,
    /// else the next one is told to fail, and to tell the one behind it.
    fn leave_queue(&self, cpu: &Cpu<'_, P>, node: &QueueNode<P>, tail: u16) {
        if !self.word.try_remove_tail(tail) {
            let next = wait_for_next(node);
            if planted!(cpu, SuccessorNotTold) {
                return;
            }
            // Release pairs with the acquire in `wait_for_turn`.
            next.turn.store(FAIL, Ordering::Release);
        }
    }

    /// Acquires the lock on a CPU that has no node, or none that may be used.
    fn acquire_without_node(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        if G::TRIES_ONCE {
            return if self.word.try_acquire() { Ok(()) } else { Err(Errno::EDEADLK) };
        }
        let mut patience = Patience::new(cpu, self.address(), 1);
        P::wait_until_or_every(
            SPINS_BETWEEN_LOOKS,
            || self.word.try_acquire().then_some(Ok(())),
            || patience.lost::<G>(|| self.word.is_released(u32::MAX)).map(Err),
        )
    }
}

/// The test-and-set form, for hosts on which a waiter's CPU may not run: as in a guest of Linux
/// 7.0 and
/// later (82f3b142c99c), where the fast path comes before.
pub struct ResilientTas<P: Memory> {
    word: QueuedWord<P, WordForm>,
}

impl<P: Platform> Lock<P> for ResilientTas<P> {
    const ID: &'static str = "rqspin-tas";
    const FALLIBLE: bool = true;

    fn new() -> Self {
        Self { word: QueuedWord::new() }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.word.is_locked()
    }
}

impl<P: Platform> RawLock<P> for ResilientTas<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        cpu.this.held.enter(core::ptr::from_ref(self).cast_mut().cast());
        match self.word.try_fast() {
            Ok(()) => Ok(()),
            Err(_) => self.acquire_slow(cpu),
        }
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        // In this order for the reason given at `Resilient`.
        self.word.release();
        cpu.this.held.clear_newest();
        cpu.this.held.leave();
    }
}

impl<P: Platform> ResilientTas<P> {
    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let lock = core::ptr::from_ref(self).cast_mut().cast();
        if planted!(cpu, TasEntryTwice) {
            cpu.this.held.enter(lock);
        }
        let mut patience = Patience::new(cpu, lock, TAS_TIMEOUTS);
        let acquired = P::wait_until_or_every(
            SPINS_BETWEEN_LOOKS,
            || self.word.try_acquire_fully().then_some(Ok(())),
            || patience.lost::<V72>(|| self.word.is_released(u32::MAX)).map(Err),
        );
        if acquired.is_err() {
            leave_failed(cpu);
        }
        acquired
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Generation, HEAD_TIMEOUT_NS, LOCK_TIMEOUT_NS, Of, RawLock as _, Resilient, V72, V615, V619,
        encode_tail,
    };
    use crate::cell::Errno;
    use crate::lock::Lock as _;
    use crate::lock::queued::Claim;
    use crate::machine::{Cpu, MachineConfig};
    use crate::platform::{Memory as _, Stepped};
    use crate::{CpuId, Machine};

    /// Makes a lock that is held and has a pending waiter for ever. It stays where the table says it is.
    fn busy<G: Generation>(machine: &Machine<Stepped>) -> Box<Of<Stepped, G>> {
        let lock = Box::new(Of::<Stepped, G>::new());
        lock.acquire(&machine.cpu(CpuId(1))).unwrap();
        assert!(lock.word.set_pending(lock.word.load()).is_some());
        lock
    }

    /// Returns the result of an acquire in an NMI on a lock that is busy for ever, and its duration in
    /// nanoseconds.
    fn in_nmi<G: Generation>(
        machine: &Machine<Stepped>,
        cpu: &Cpu<'_, Stepped>,
    ) -> (Result<(), Errno>, u64) {
        let lock = busy::<G>(machine);
        let began_ns = Stepped::now_ns();
        let result = cpu.nmi(|nmi| lock.acquire(nmi));
        (result, Stepped::now_ns() - began_ns)
    }

    /// CPU 1's head waits for CPU 0's pending waiter, which is interrupted by an NMI that wants the
    /// same lock: behind that head it would keep the three of them waiting for the timeout.
    #[test]
    fn an_nmi_over_the_pending_waiter_of_its_lock_does_not_queue() {
        let machine = Machine::<Stepped>::new(MachineConfig::new(3));
        let [cpu, head, holder] = [0, 1, 2].map(|cpu| machine.cpu(CpuId(cpu)));
        let lock = Resilient::<Stepped>::new();
        lock.acquire(&holder).unwrap();
        cpu.this.held.enter(lock.address());
        assert!(lock.word.set_pending(lock.word.load()).is_some());
        let waiter = Claim::new(&head);
        waiter.node().unwrap();
        assert_eq!(lock.word.swap_tail(encode_tail(head.id(), waiter.level)), 0);
        let before = lock.word.load();
        assert_eq!(cpu.nmi(|nmi| lock.acquire(nmi)), Err(Errno::EDEADLK));
        assert_eq!(lock.word.load(), before, "as if it had not come");
        assert_eq!(cpu.this.held.len(), 1);
    }

    /// Two CPUs whose NMIs queued behind each other's interrupted heads hung for ever. Before 6.19
    /// no
    /// NMI queues, and each spins; since then one over a waiter tries once.
    #[test]
    fn an_nmi_over_a_waiter_does_not_queue() {
        let machine = Machine::new(MachineConfig::new(2));
        let cpu = machine.cpu(CpuId(0));
        let (result, took_ns) = in_nmi::<V72>(&machine, &cpu);
        assert_eq!(result, Err(Errno::ETIMEDOUT));
        assert!(took_ns >= HEAD_TIMEOUT_NS, "alone on its CPU it queues: {took_ns}");
        let (result, took_ns) = in_nmi::<V615>(&machine, &cpu);
        assert_eq!(result, Err(Errno::ETIMEDOUT));
        assert!((LOCK_TIMEOUT_NS..HEAD_TIMEOUT_NS).contains(&took_ns), "it spins: {took_ns}");
        let waiter = Claim::new(&cpu);
        let (result, took_ns) = in_nmi::<V72>(&machine, &cpu);
        drop(waiter);
        assert_eq!(result, Err(Errno::EDEADLK));
        assert!(took_ns < LOCK_TIMEOUT_NS, "it tries once: {took_ns}");
    }

    /// CPU 1 holds what CPU 0 wants and wants what CPU 0 holds, while CPU 0 is the only one in the
    /// queue. 6.19 waits there for somebody to hand the queue to (7a3c0289c3c8), for ever.
    #[test]
    fn a_lone_head_that_finds_a_deadlock_leaves_the_lock_as_it_was() {
        fn leaves<G: Generation>() {
            let machine = Machine::new(MachineConfig::new(2));
            let wanted = busy::<G>(&machine);
            let [cpu, other] = [0, 1].map(|cpu| machine.cpu(CpuId(cpu)));
            let held = Of::<Stepped, G>::new();
            held.acquire(&cpu).unwrap();
            other.this.held.enter(held.address());
            let before = wanted.word.load();
            assert_eq!(wanted.acquire(&cpu), Err(Errno::EDEADLK), "{}", G::ID);
            assert_eq!(wanted.word.load(), before, "{}", G::ID);
            assert_eq!((cpu.this.held.len(), cpu.this.queue.used()), (1, 0), "{}", G::ID);
        }
        leaves::<V615>();
        leaves::<V72>();
        const { assert!(!V619::LONE_HEAD_LEAVES, "it would not end") };
    }

    /// AA, which no generation answers with a timeout.
    #[test]
    fn a_lock_taken_twice_is_a_deadlock_in_every_generation() {
        fn fails<G: Generation>() {
            let machine = Machine::<Stepped>::new(MachineConfig::new(1));
            let cpu = machine.cpu(CpuId(0));
            let lock = Of::<Stepped, G>::new();
            lock.acquire(&cpu).unwrap();
            assert_eq!(lock.acquire(&cpu), Err(Errno::EDEADLK), "{}", G::ID);
            lock.release(&cpu);
            assert_eq!((lock.word.load(), cpu.this.held.len()), (0, 0), "{}", G::ID);
        }
        fails::<V615>();
        fails::<V619>();
        fails::<V72>();
    }
}

/// The clock of the deadlock checks, in steps that are not their interval.
#[cfg(all(test, feature = "shuttle"))]
mod clock {
    use super::{CYCLE_CHECK_NS, HEAD_TIMEOUTS, Patience, V72};
    use crate::cell::Errno;
    use crate::machine::MachineConfig;
    use crate::platform::Shuttle;
    use crate::platform::shuttle::advance_ns;
    use crate::{CpuId, Machine};

    /// Two CPUs hold what the other wants; the clock is looked at three times a millisecond.
    #[test]
    fn a_cycle_is_looked_for_once_in_its_interval_however_often_the_clock_is_read() {
        let story = || {
            let machine = Machine::<Shuttle>::new(MachineConfig::new(2));
            let [cpu, other] = [0, 1].map(|number| machine.cpu(CpuId(number)));
            let [mine, theirs] = [0x1000, 0x2000].map(core::ptr::without_provenance_mut);
            for (cpu, wanted) in [(&cpu, [mine, theirs]), (&other, [theirs, mine])] {
                wanted.into_iter().for_each(|lock| cpu.this.held.enter(lock));
            }
            let mut patience = Patience::new(&cpu, theirs, HEAD_TIMEOUTS);
            let mut looks = 0;
            let errno = loop {
                looks += 1;
                if let Some(errno) = patience.lost::<V72>(|| false) {
                    break errno;
                }
                advance_ns(CYCLE_CHECK_NS / 3);
            };
            assert_eq!(errno, Errno::EDEADLK);
            assert!((4..=6).contains(&looks), "found at look {looks}");
        };
        shuttle::check_random(story, 1);
    }
}
