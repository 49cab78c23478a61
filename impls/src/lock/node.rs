//! The nodes on which the waiters of queue locks wait, and what else such locks keep per CPU.
//!
//! A CPU has a stack of nodes: a lock takes the next one when it is wanted, and gives it back when it
//! is released or given up. Critical sections nest, and so do interrupts, so the last one taken is
//! the first one given back; a release finds the holder's node on top. Nodes lie on lines of their
//! own and outlive every wait, since the machine owns them.
//!
//! CLH locks exchange nodes: a CPU goes on with the node of the one before it. So a place of the
//! stack holds a pointer, and whoever holds the pointer owns the node. Other locks get their node back,
//! and their first one is part of the stack: its address need not be loaded, which would stand between a
//! release and the exchange of the next acquire.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU64, compiler_fence};

use crossbeam_utils::CachePadded;

use crate::machine::{Context, Cpu, CpuLocal};
use crate::platform::{Ordering, Platform, Word};

/// Queue locks that a CPU can hold or wait for at once, all contexts together.
pub const MAX_NESTING: usize = 8;
/// The same in model checkers, where each word costs time in each execution.
const CHECKED_NESTING: usize = 2;
/// Contexts that can nest on a CPU.
const CONTEXTS: usize = Context::Nmi as usize + 1;

/// [`WaitNode::state`]: not yet.
pub(crate) const WAITING: u32 = 0;
/// [`WaitNode::state`]: the waiter in front has left, the lock is this waiter's.
pub(crate) const GRANTED: u32 = 1;

/// A waiter's place in a queue. What the words hold is the lock's matter.
pub(crate) struct WaitNode<P: Platform> {
    /// The waiter behind this one, or in a stack the one beneath.
    pub(crate) next: P::Ptr<WaitNode<P>>,
    /// The waiter behind this one in a queue of [`mcs`](super::mcs). Null outside of a queue, so that an
    /// acquire need not store it.
    pub(crate) behind: P::Ptr<WaitNode<P>>,
    /// The waiter in front of this one, or what it said.
    pub(crate) link: P::Ptr<WaitNode<P>>,
    /// Word that the waiter spins on.
    pub(crate) state: P::U32,
    /// Word in which others note the waiter's role.
    pub(crate) role: P::U32,
}

impl<P: Platform> WaitNode<P> {
    /// Returns a node that nobody uses, on a line of its own; the caller owns it.
    pub(crate) fn allocate() -> NonNull<Self> {
        let node = Box::new(CachePadded::new(Self::new()));
        // The padding comes behind the node.
        NonNull::from(Box::leak(node)).cast()
    }

    /// Returns a node for a place that is padded by its owner.
    pub(crate) fn new() -> Self {
        Self {
            next: P::Ptr::new("wait.next", ptr::null_mut()),
            behind: P::Ptr::new("wait.behind", ptr::null_mut()),
            link: P::Ptr::new("wait.link", ptr::null_mut()),
            state: P::U32::new("wait.state", WAITING),
            role: P::U32::new("wait.role", 0),
        }
    }

    /// Frees a node.
    ///
    /// # Safety
    /// It came from [`allocate`](Self::allocate), and nobody knows it any more.
    pub(crate) unsafe fn free(node: NonNull<Self>) {
        // SAFETY: by contract; allocated as a padded box.
        drop(unsafe { Box::from_raw(node.cast::<CachePadded<Self>>().as_ptr()) });
    }

    /// Returns the node's address as words hold it.
    pub(crate) fn address(&self) -> *mut Self {
        ptr::from_ref(self).cast_mut()
    }

    /// Makes the node ready for a queue whose waiters announce themselves to the one in front.
    pub(crate) fn reset(&self) {
        // Relaxed: the exchange of the tail publishes them.
        self.next.store(ptr::null_mut(), Ordering::Relaxed);
        self.state.store(WAITING, Ordering::Relaxed);
    }

    /// Waits for the waiter behind this one to announce itself: it has exchanged the tail, so it
    /// will.
    pub(crate) fn wait_for_next(&self) -> &Self {
        P::wait_until(|| {
            // Acquire pairs with the release of `announce`.
            let next = self.next.load(Ordering::Acquire);
            // SAFETY: nodes belong to the machine, which outlives the wait.
            unsafe { next.as_ref() }
        })
    }

    /// Tells the waiter in front, `self`, who is behind it.
    pub(crate) fn announce(&self, behind: &Self) {
        // Release pairs with the acquire in `wait_for_next`: the node is ready.
        self.next.store(behind.address(), Ordering::Release);
    }

    /// Waits until the waiter in front has said something; returns what.
    pub(crate) fn wait_for_state(&self) -> u32 {
        // Acquire pairs with the release of the one in front.
        P::wait_until(|| Some(self.state.load(Ordering::Acquire)).filter(|state| *state != WAITING))
    }
}

/// A node that was taken.
pub(crate) struct Taken<'a, P: Platform> {
    /// The node, the caller's until it gives it back.
    pub(crate) node: &'a WaitNode<P>,
    /// Its place in the CPU's stack.
    level: u32,
}

/// Nodes and words that a CPU keeps for queue locks.
pub struct WaitNodes<P: Platform> {
    /// The first node of locks that get theirs back.
    first: CachePadded<WaitNode<P>>,
    /// How many are in use.
    used: CpuLocal,
    /// The first [`nesting`](Self::nesting) places hold a node each, the others are null. In here, since
    /// each acquire of a lock that exchanges nodes waits for the address.
    nodes: [AtomicPtr<WaitNode<P>>; MAX_NESTING],
    /// For each context, the lock that its holder hands over now (Hemlock).
    grants: [CachePadded<P::Ptr<()>>; CONTEXTS],
    /// For each context, how many numbers it has drawn (Hapax). Its own, so that an interrupt
    /// between
    /// the load and the store cannot draw the same.
    drawn: [AtomicU64; CONTEXTS],
    /// Re-entrancy guards, chosen by the lock's address.
    guards: [CpuLocal; GUARDS],
}

/// Re-entrancy guards of a CPU: as many as a hash map of the kernel had.
pub(crate) const GUARDS: usize = 8;

// SAFETY: a node is used by others through its atomic words alone; who owns it is the lock's matter.
unsafe impl<P: Platform> Send for WaitNodes<P> {}
// SAFETY: as above; the stack itself is touched by its own CPU alone.
unsafe impl<P: Platform> Sync for WaitNodes<P> {}

impl<P: Platform> WaitNodes<P> {
    pub(crate) fn new() -> Self {
        Self {
            first: CachePadded::new(WaitNode::new()),
            used: CpuLocal::default(),
            nodes: core::array::from_fn(|place| {
                let has_node = place < Self::nesting();
                AtomicPtr::new(if has_node {
                    WaitNode::allocate().as_ptr()
                } else {
                    ptr::null_mut()
                })
            }),
            grants: core::array::from_fn(|_| {
                CachePadded::new(P::Ptr::new("cpu.grant", ptr::null_mut()))
            }),
            drawn: Default::default(),
            guards: Default::default(),
        }
    }

    /// Returns how many queue locks may be held or waited for at once.
    const fn nesting() -> usize {
        if P::QUARANTINE { CHECKED_NESTING } else { MAX_NESTING }
    }

    /// Returns nodes in use and guards taken: 0 at rest.
    pub fn used(&self) -> u32 {
        self.used.get() + self.guards.iter().map(CpuLocal::get).sum::<u32>()
    }

    /// Takes the next node.
    ///
    /// # Panics
    /// If more than [`MAX_NESTING`] queue locks are held or waited for on this CPU.
    #[inline(always)]
    pub(crate) fn push(&self) -> &WaitNode<P> {
        self.take().node
    }

    /// Takes the next node, as [`push`](Self::push) does, and says where it was.
    #[inline(always)]
    pub(crate) fn take(&self) -> Taken<'_, P> {
        let level = self.take_level();
        Taken { node: self.at(level), level }
    }

    /// Returns the node taken last and where it was.
    #[inline(always)]
    pub(crate) fn taken_last(&self) -> Taken<'_, P> {
        let level = self.used.get() - 1;
        Taken { node: self.at(level), level }
    }

    /// Takes the next node for a lock that may give back another one.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    #[inline(always)]
    pub(crate) fn take_exchanged(&self) -> Taken<'_, P> {
        let level = self.take_level();
        Taken { node: self.at_place(level), level }
    }

    /// Returns the node that such a lock took last and where it was.
    #[inline(always)]
    pub(crate) fn exchanged_last(&self) -> Taken<'_, P> {
        let level = self.used.get() - 1;
        Taken { node: self.at_place(level), level }
    }

    /// Takes the next level; an interrupt from here on takes those behind it.
    #[inline(always)]
    fn take_level(&self) -> u32 {
        let level = self.used.get();
        // An interrupt between the load and the store leaves the count as it found it.
        self.used.set(level + 1);
        // The place is read after that: until then an interrupt takes the node, and may leave another.
        compiler_fence(Ordering::SeqCst);
        level
    }

    /// Gives back the node taken last. A store alone: the next acquire does not wait for a load of the
    /// count and a subtraction.
    #[inline(always)]
    pub(crate) fn give_back(&self, taken: &Taken<'_, P>) {
        self.used.set(taken.level);
    }

    /// Gives back the node taken last for another one, as the caller has passed its ownership on.
    #[inline(always)]
    pub(crate) fn give_back_as(&self, taken: &Taken<'_, P>, node: NonNull<WaitNode<P>>) {
        // Relaxed: this CPU's alone.
        self.nodes[taken.level as usize].store(node.as_ptr(), Ordering::Relaxed);
        self.give_back(taken);
    }

    /// Returns the node taken last.
    #[inline(always)]
    pub(crate) fn top(&self) -> &WaitNode<P> {
        self.taken_last().node
    }

    /// Gives the node taken last back.
    #[inline(always)]
    pub(crate) fn pop(&self) {
        self.used.set(self.used.get() - 1);
    }

    /// Replaces the node taken last, whose ownership the caller has passed on.
    #[inline(always)]
    pub(crate) fn replace_top(&self, node: NonNull<WaitNode<P>>) {
        // Relaxed: this CPU's alone.
        self.nodes[self.used.get() as usize - 1].store(node.as_ptr(), Ordering::Relaxed);
    }

    #[inline(always)]
    fn at(&self, level: u32) -> &WaitNode<P> {
        // A branch, which is predicted: the address of the node waits for nothing.
        if level == 0 {
            return &self.first;
        }
        // SAFETY: a place that is used holds a node; who took its level alone replaces it, and gets here
        // only in locks that do not.
        unsafe { &*self.nested(level) }
    }

    #[inline(always)]
    fn at_place(&self, level: u32) -> &WaitNode<P> {
        // Predicted likewise: the address does not wait for the count.
        let node =
            if level == 0 { self.nodes[0].load(Ordering::Relaxed) } else { self.nested(level) };
        // SAFETY: a place that is used holds a node, which lives as long as somebody owns it; whoever passes
        // it on replaces it here.
        unsafe { &*node }
    }

    #[cold]
    #[inline(never)]
    fn nested(&self, level: u32) -> *mut WaitNode<P> {
        if level as usize >= Self::nesting() {
            self.used.set(level);
            panic!("more than {level} queue locks at once");
        }
        self.nodes[level as usize].load(Ordering::Relaxed)
    }

    /// Returns where this CPU hands locks over in a context.
    #[inline(always)]
    pub(crate) fn grant(&self, context: Context) -> &P::Ptr<()> {
        &self.grants[context as usize]
    }

    /// Draws a number that no other CPU and no other context ever draws, and this one only once;
    /// not 0.
    #[inline(always)]
    pub(crate) fn draw(&self, cpu: &Cpu<'_, P>) -> u64 {
        let drawn = &self.drawn[cpu.context() as usize];
        // Relaxed: this CPU's alone, and of one context.
        let number = drawn.load(Ordering::Relaxed) + 1;
        drawn.store(number, Ordering::Relaxed);
        let source = u64::from(cpu.id().0) * CONTEXTS as u64 + cpu.context() as u64;
        number << SOURCE_BITS | source
    }

    /// Returns the guard for the lock at an address.
    #[inline(always)]
    pub(crate) fn guard(&self, lock: usize) -> &CpuLocal {
        &self.guards[(lock >> 4) % GUARDS]
    }
}

/// Bits of a drawn number that say who drew it.
const SOURCE_BITS: u32 = 16;

impl<P: Platform> Drop for WaitNodes<P> {
    fn drop(&mut self) {
        for node in &mut self.nodes[..Self::nesting()] {
            // SAFETY: a place owns its node, and at rest no lock knows it.
            unsafe { WaitNode::free(NonNull::new_unchecked(*node.get_mut())) };
        }
    }
}

/// The array on which waiters of all locks of a machine wait that are far from the front: which
/// place
/// is a hash of lock and turn, so that one release wakes few (Dice and Kogan, EuroPar 2019).
pub struct WaitArray<P: Platform> {
    places: Box<[P::U64]>,
}

/// Places of the array; the paper's number.
const PLACES: usize = 4096;
/// The same in model checkers: so few that turns collide.
const CHECKED_PLACES: usize = 2;

impl<P: Platform> WaitArray<P> {
    pub(crate) fn new() -> Self {
        let places = if P::QUARANTINE { CHECKED_PLACES } else { PLACES };
        Self { places: (0..places).map(|_| P::U64::new("wait.array", 0)).collect() }
    }

    /// Returns the place for a turn at the lock at an address.
    #[inline(always)]
    pub(crate) fn place(&self, lock: usize, turn: u64) -> &P::U64 {
        // Neighbouring turns on lines of their own: 17 words apart, as the paper has it.
        let hash = (lock as u64 >> 3).wrapping_mul(31).wrapping_add(turn.wrapping_mul(17));
        &self.places[hash as usize & (self.places.len() - 1)]
    }
}
