//! The allocator: memory for control blocks and commands, without locks and from any context, as
//! `kmalloc_nolock()` gives it in the kernel.
//!
//! Each CPU has a stack of free slots per size class. A stack's head carries a tag that changes
//! with every pop, so that an interrupt or another CPU that pops and pushes the same slot in
//! between is noticed (Treiber's stack with a counted pointer). An empty CPU takes from others;
//! when all are empty, a new chunk is made, except in hardirq and NMI context, where allocation
//! fails: callers return ENOMEM, as in the kernel. So they do when `MAX_CHUNKS` are in use, as when
//! a CPU that does not run holds up a grace period behind which others free.
//!
//! It also keeps the books: what was handed out and not returned is a leak. Platforms with
//! [`Memory::POISON`](crate::platform::Memory::POISON) fill freed slots with a pattern and verify
//! it on reuse; those with [`Memory::QUARANTINE`](crate::platform::Memory::QUARANTINE) never
//! reuse memory and find a double free.

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use std::alloc::{alloc, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use core::sync::atomic::AtomicU64;

use cellbench_mutations::mutated;
use crossbeam_utils::CachePadded;

use crate::machine::{Context, Cpu};
use crate::platform::{Ordering, Platform, Word};

/// Slot sizes in bytes: the kernel's `kmalloc` caches, of which small objects share lines. A slot
/// is
/// aligned as there, to the largest power of two that divides its size.
const CLASSES: [usize; 9] = [32, 64, 96, 128, 192, 256, 512, 1024, 2048];
/// Size and alignment of a chunk, in bytes: a slot's chunk is found by masking its address.
const CHUNK: usize = 1 << 16;
/// Chunks per class: some million slots of 64 bytes.
const MAX_CHUNKS: usize = 1 << 10;
/// Byte that freed memory is filled with.
const POISON: u8 = 0x6b;
/// No slot.
const NONE: u32 = u32::MAX;

/// See the module.
pub struct Heap<P: Platform> {
    classes: [Class<P>; CLASSES.len()],
    /// Only with quarantine: every slot handed out, and whether it was freed since.
    quarantine: Mutex<BTreeMap<usize, Quarantined>>,
    /// Objects handed out and returned, by CPU.
    books: Box<[CachePadded<Books>]>,
}

#[derive(Default)]
struct Books {
    allocated: AtomicU64,
    freed: AtomicU64,
}

struct Quarantined {
    layout: Layout,
    freed: bool,
}

struct Class<P: Platform> {
    size: usize,
    chunks: Box<[OnceLock<Chunk<P>>]>,
    /// Number of chunks made; also makes one CPU at a time make one.
    made: Mutex<usize>,
    /// Free slots, by CPU.
    free: Box<[CachePadded<FreeStack<P>>]>,
}

/// A stack of slot numbers: the low half of the head is the top slot, the high half the tag.
struct FreeStack<P: Platform> {
    head: P::U64,
}

struct Chunk<P: Platform> {
    memory: NonNull<u8>,
    first_slot: u32,
    /// For each slot the one below it in its stack. Not inside the slot, whose new owner may
    /// write there while a slower CPU still looks at the stack.
    below: Box<[P::U32]>,
}

/// First bytes of a chunk's memory.
struct ChunkHeader {
    first_slot: u32,
}

// SAFETY: the memory is reached through slots, each owned by one party at a time.
unsafe impl<P: Platform> Send for Chunk<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for Chunk<P> {}

/// The books at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapStats {
    /// Objects ever handed out.
    pub allocated: u64,
    /// Objects returned.
    pub freed: u64,
}

impl HeapStats {
    /// Objects handed out and not returned.
    pub fn live(&self) -> u64 {
        self.allocated - self.freed
    }
}

impl<P: Platform> Heap<P> {
    /// Returns an empty heap for a machine with `cpus` CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            classes: CLASSES.map(|size| Class::new(size, cpus)),
            quarantine: Mutex::new(BTreeMap::new()),
            books: (0..cpus).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Returns what was handed out and returned so far. Exact when no CPU allocates or frees.
    pub fn stats(&self) -> HeapStats {
        let sum = |count: fn(&Books) -> &AtomicU64| {
            // Relaxed: exact at rest, when the CPUs' threads have been joined.
            self.books.iter().map(|books| count(books).load(Ordering::Relaxed)).sum()
        };
        HeapStats { allocated: sum(|books| &books.allocated), freed: sum(|books| &books.freed) }
    }

    /// Makes room for `count` more objects of type `T` on this CPU, so that allocating them in
    /// any context succeeds and touches no fresh page; for fewer if the heap is full.
    pub fn reserve<T>(&self, cpu: &Cpu<'_, P>, count: usize) {
        if P::QUARANTINE {
            return;
        }
        let class = self.class::<T>();
        for _ in 0..count.div_ceil(class.slots_per_chunk()) {
            let _irq_off = cpu.irq_save();
            if !class.grow(cpu) {
                return;
            }
        }
    }

    /// Allocates an object; `make` gets the address at which it will be. `None`: no memory that
    /// this context may take.
    #[inline]
    pub fn alloc<T>(&self, cpu: &Cpu<'_, P>, make: impl FnOnce(*mut T) -> T) -> Option<NonNull<T>> {
        let memory: NonNull<T> = if P::QUARANTINE {
            self.alloc_quarantined::<T>().cast()
        } else {
            let slot = self.class::<T>().alloc(cpu)?;
            if P::POISON {
                self.class::<T>().verify_poison(slot);
            }
            slot.cast()
        };
        // SAFETY: a free slot, large and aligned enough for `T` (see `class`), now this caller's.
        unsafe { memory.write(make(memory.as_ptr())) };
        // Relaxed: only this CPU and its interrupts add here.
        self.books_of(cpu).allocated.fetch_add(1, Ordering::Relaxed);
        Some(memory)
    }

    /// Drops the object and returns its memory.
    ///
    /// # Safety
    /// `object` came from [`alloc`](Self::alloc) of this heap with the same `T`, was not freed
    /// since, and nobody uses it any more.
    #[inline]
    pub unsafe fn free<T>(&self, cpu: &Cpu<'_, P>, object: NonNull<T>) {
        if P::QUARANTINE {
            self.note_quarantined(object.cast());
        }
        // SAFETY: by contract, nobody else uses it. With quarantine the words it consists of
        // note that they were dropped, and their memory stays.
        unsafe { object.drop_in_place() };
        if !P::QUARANTINE {
            let class = self.class::<T>();
            if P::POISON {
                // SAFETY: the whole slot belongs to the object that was dropped.
                unsafe { object.cast::<u8>().write_bytes(POISON, class.size) };
            }
            class.push(&class.free[cpu.id().index()], object.cast());
        }
        // Relaxed: as in `alloc`.
        self.books_of(cpu).freed.fetch_add(1, Ordering::Relaxed);
    }

    #[inline(always)]
    fn books_of(&self, cpu: &Cpu<'_, P>) -> &Books {
        &self.books[if mutated!(BooksOfOneCpu) { 0 } else { cpu.id().index() }]
    }

    #[inline(always)]
    fn class<T>(&self) -> &Class<P> {
        let index = const {
            let mut index = 0;
            while CLASSES[index] < size_of::<T>() {
                index += 1;
            }
            let alignment = 1 << CLASSES[index].trailing_zeros();
            assert!(align_of::<T>() <= alignment, "slots of its size are not aligned for it");
            index
        };
        &self.classes[index]
    }

    fn quarantine(&self) -> MutexGuard<'_, BTreeMap<usize, Quarantined>> {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alloc_quarantined<T>(&self) -> NonNull<u8> {
        let layout = Layout::new::<T>();
        let memory = alloc_or_abort(layout);
        self.quarantine().insert(memory.as_ptr() as usize, Quarantined { layout, freed: false });
        memory
    }

    fn note_quarantined(&self, object: NonNull<u8>) {
        let mut quarantine = self.quarantine();
        let entry = quarantine.get_mut(&(object.as_ptr() as usize));
        let entry = entry.expect("freed memory that this heap did not hand out");
        assert!(!entry.freed, "double free");
        entry.freed = true;
    }
}

impl<P: Platform> Drop for Heap<P> {
    fn drop(&mut self) {
        for (address, slot) in &*self.quarantine() {
            // SAFETY: allocated with this layout in `alloc_quarantined`; the machine is gone and
            // nobody refers to it.
            unsafe { dealloc(ptr::with_exposed_provenance_mut(*address), slot.layout) };
        }
    }
}

impl<P: Platform> Class<P> {
    fn new(size: usize, cpus: usize) -> Self {
        Self {
            size,
            chunks: (0..if P::QUARANTINE { 0 } else { MAX_CHUNKS })
                .map(|_| OnceLock::new())
                .collect(),
            made: Mutex::new(0),
            free: (0..cpus)
                .map(|_| {
                    let head = P::U64::new("heap.free", u64::from(NONE));
                    CachePadded::new(FreeStack { head })
                })
                .collect(),
        }
    }

    /// Returns the first slot's place is taken by the header.
    const fn slots_per_chunk(&self) -> usize {
        CHUNK / self.size - 1
    }

    fn alloc(&self, cpu: &Cpu<'_, P>) -> Option<NonNull<u8>> {
        let own = cpu.id().index();
        if let Some(slot) = self.pop(&self.free[own]) {
            return Some(slot);
        }
        self.alloc_slow(cpu)
    }

    #[cold]
    fn alloc_slow(&self, cpu: &Cpu<'_, P>) -> Option<NonNull<u8>> {
        let own = cpu.id().index();
        let count = self.free.len();
        if let Some(slot) = (1..count).find_map(|step| self.pop(&self.free[(own + step) % count])) {
            return Some(slot);
        }
        if cpu.context() >= Context::Hardirq && !mutated!(HeapGrowsInNmi) {
            return None;
        }
        let _irq_off = cpu.irq_save();
        // Again, because others may take all that is new before this CPU gets to it.
        while self.grow(cpu) {
            if let Some(slot) = self.pop(&self.free[own]) {
                return Some(slot);
            }
        }
        None
    }

    /// Makes a chunk and puts its slots on the CPU's stack; `false` if there are as many as there
    /// may be. Interrupts are off.
    fn grow(&self, cpu: &Cpu<'_, P>) -> bool {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if *made == MAX_CHUNKS {
            return false;
        }
        let slots = self.slots_per_chunk();
        let first_slot = (*made * slots) as u32;
        let memory = alloc_or_abort(chunk_layout());
        // SAFETY: fresh memory of a chunk's size and alignment.
        unsafe {
            memory.write_bytes(POISON, CHUNK);
            memory.cast().write(ChunkHeader { first_slot });
        }
        let below = (0..slots).map(|_| P::U32::new("heap.below", NONE)).collect();
        let chunk = Chunk { memory, first_slot, below };
        let fresh = self.chunks[*made].set(chunk).is_ok();
        debug_assert!(fresh);
        *made += 1;
        let chunk = &self.chunks[*made - 1];
        // The stacks need no lock, and words of the simulator hand over to other CPUs.
        drop(made);
        let own = &self.free[cpu.id().index()];
        // Highest first, so that slots are handed out in order of address.
        for index in (0..slots).rev() {
            self.push(own, chunk.get().expect("just set").slot(index, self.size));
        }
        true
    }

    fn chunk_of_slot(&self, slot: u32) -> &Chunk<P> {
        let chunk = slot as usize / self.slots_per_chunk();
        self.chunks[chunk].get().expect("a slot on a stack belongs to a chunk")
    }

    fn pop(&self, stack: &FreeStack<P>) -> Option<NonNull<u8>> {
        // Acquire pairs with the release in `push`: `below` and the slot's content.
        let order = if mutated!(PopRelaxed) { Ordering::Relaxed } else { Ordering::Acquire };
        let mut head = stack.head.load(order);
        loop {
            let slot = head as u32;
            if slot == NONE {
                return None;
            }
            let chunk = self.chunk_of_slot(slot);
            let index = (slot - chunk.first_slot) as usize;
            let below = chunk.below[index].load(Ordering::Relaxed);
            // The tag makes the exchange fail if the slot left the stack and came back.
            let tag = (head >> 32).wrapping_add(u64::from(!mutated!(FreeListUntagged)));
            let next = tag << 32 | u64::from(below);
            match stack.head.cas(head, next, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(chunk.slot(index, self.size)),
                Err(found) => head = found,
            }
        }
    }

    fn push(&self, stack: &FreeStack<P>, memory: NonNull<u8>) {
        let address = memory.as_ptr();
        let offset = address.addr() & (CHUNK - 1);
        // SAFETY: slots lie in chunks, which begin with their header and are aligned to their
        // size; the header is written once, before any slot is handed out.
        let first_slot = unsafe { (*address.sub(offset).cast::<ChunkHeader>()).first_slot };
        let index = offset / self.size - 1;
        let slot = first_slot + index as u32;
        let below = &self.chunk_of_slot(slot).below[index];
        let mut head = stack.head.load(Ordering::Relaxed);
        loop {
            below.store(head as u32, Ordering::Relaxed);
            let next = head & !u64::from(u32::MAX) | u64::from(slot);
            // Release pairs with the acquire in `pop`.
            let order = if mutated!(PushRelaxed) { Ordering::Relaxed } else { Ordering::Release };
            match stack.head.cas(head, next, order, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }

    fn verify_poison(&self, slot: NonNull<u8>) {
        // SAFETY: a free slot, initialised when the chunk was made.
        let bytes = unsafe { core::slice::from_raw_parts(slot.as_ptr(), self.size) };
        if let Some(offset) = bytes.iter().position(|byte| *byte != POISON) {
            panic!(
                "write after free: byte {offset} of a freed slot of {} bytes is {:#04x}",
                self.size, bytes[offset]
            );
        }
    }
}

impl<P: Platform> Chunk<P> {
    fn slot(&self, index: usize, size: usize) -> NonNull<u8> {
        debug_assert!(index < self.below.len());
        // SAFETY: `index` is below the number of slots, and the header's place comes first.
        unsafe { self.memory.add((index + 1) * size) }
    }
}

impl<P: Platform> Drop for Chunk<P> {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `grow`.
        unsafe { dealloc(self.memory.as_ptr(), chunk_layout()) };
    }
}

fn chunk_layout() -> Layout {
    const { assert!(CHUNK.is_power_of_two()) };
    Layout::from_size_align(CHUNK, CHUNK).expect("a power of two")
}

fn alloc_or_abort(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout used here has size 0.
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests;
