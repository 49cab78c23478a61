//! The allocator of programs that simulate: every allocation of a simulation begins a cache line.
//!
//! The simulator takes cache lines from real addresses. Where the allocator puts an object within
//! its line depends on everything that was allocated before, by whatever ran on this thread, so
//! that the same simulation would differ between two runs. While a thread is [`within`], what it
//! allocates is aligned to lines instead, as the kernel's allocator aligns what fills a line:
//! layout is then a matter of the structures alone.
//!
//! A library does not choose the allocator of whoever links it. The binary `cellbench`, and whatever
//! else simulates, installs it:
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: cellbench_measure::alloc::LineAligned = cellbench_measure::alloc::LineAligned;
//!
//! let memory = cellbench_measure::alloc::within(|| Box::new(1_u8));
//! assert!(std::ptr::from_ref(&*memory).addr().is_multiple_of(64));
//! ```
//!
//! On real cores the benches keep the system's allocator.
//!
//! Where no memory is left, the process ends with its one line on standard error, as it does for any other
//! error; the standard library would abort, with a trace of the stack.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::fmt::Write;
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// A cache line of every machine that can be simulated.
const LINE_BYTES: usize = 64;
/// Alignment of `malloc`, in bytes (C11, `max_align_t`, on 64-bit targets).
const MALLOC_ALIGN: usize = 16;

/// Exit status where no memory is left: that of every error.
const EXHAUSTED: i32 = crate::cmd::EXIT_ERROR as i32;

/// Where what was measured so far is, for the line that says that no memory is left.
static KEPT: Mutex<String> = Mutex::new(String::new());

/// Has the process say that what was measured so far is in `dir`, should it run out of memory.
pub fn keeps(dir: &Path) {
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = dir.display().to_string();
}

/// A line of limited length, which takes no memory; what does not fit is cut off.
struct Line {
    bytes: [u8; 1024],
    length: usize,
}

impl Line {
    /// Writes the line of a process that could not have `bytes` more.
    fn exhausted(bytes: usize, kept: &str) -> Self {
        let mut line = Self { bytes: [0; 1024], length: 0 };
        let limits = "raise the limit on memory (`ulimit -v`, memory.max of the cgroup)";
        // Writing to it does not fail.
        let _ = write!(line, "cellbench: error: no memory for {bytes} bytes more; {limits}");
        if !kept.is_empty() {
            let _ = write!(line, "; what was measured before is kept: `cellbench report {kept}`");
        }
        line.length = line.length.min(line.bytes.len() - 1);
        line.bytes[line.length] = b'\n';
        line.length += 1;
        line
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let free = &mut self.bytes[self.length..];
        let taken = free.len().min(text.len());
        free[..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        Ok(())
    }
}

/// Returns what was allocated; ends the process if that is nothing.
fn or_end(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        end(bytes);
    }
    memory
}

/// Ends the process, which could not have so many bytes, without taking any.
#[cold]
fn end(bytes: usize) -> ! {
    // Whoever changes it now may be this very thread.
    let kept = KEPT.try_lock();
    let line = Line::exhausted(bytes, kept.as_ref().map_or("", |kept| kept.as_str()));
    let line = line.as_bytes();
    // SAFETY: the line is so long; `_exit` runs nothing of this process any more.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        libc::_exit(EXHAUSTED)
    }
}

thread_local! {
    static ALIGNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` with allocations of this thread aligned to cache lines, where [`LineAligned`] is
/// installed.
pub fn within<R>(body: impl FnOnce() -> R) -> R {
    /// Sets back what was, also when `body` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALIGNING.set(self.0);
        }
    }
    let _restore = Restore(ALIGNING.replace(true));
    body()
}

/// The C library's allocator, whose `free` takes back memory of any alignment; [`within`] says when
/// it aligns to lines.
#[derive(Clone, Copy, Debug)]
pub struct LineAligned;

impl LineAligned {
    fn alignment(layout: Layout) -> usize {
        // Outside the life of thread-locals nothing is simulated.
        let aligning = ALIGNING.try_with(Cell::get).unwrap_or(false);
        if aligning { layout.align().max(LINE_BYTES) } else { layout.align() }
    }
}

// SAFETY: memory comes from malloc and posix_memalign with the size of the layout and at least its
// alignment, is given back by free, and thread-local cells without destructors do not allocate.
unsafe impl GlobalAlloc for LineAligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let alignment = Self::alignment(layout);
        if alignment <= MALLOC_ALIGN {
            // SAFETY: any size is allowed.
            return or_end(unsafe { libc::malloc(layout.size()) }.cast(), layout.size());
        }
        let mut memory = ptr::null_mut();
        // SAFETY: the alignment is a power of two and a multiple of a pointer's size.
        match unsafe { libc::posix_memalign(&mut memory, alignment, layout.size()) } {
            0 => memory.cast(),
            _ => end(layout.size()),
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: the caller promises that it came from `alloc` or `realloc`.
        unsafe { libc::free(memory.cast()) };
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Self::alignment(layout) <= MALLOC_ALIGN {
            // SAFETY: any size is allowed. Fresh pages are not touched.
            return or_end(unsafe { libc::calloc(layout.size(), 1) }.cast(), layout.size());
        }
        // SAFETY: the caller's promise.
        let memory = unsafe { self.alloc(layout) };
        // SAFETY: so many bytes were just allocated.
        unsafe { memory.write_bytes(0, layout.size()) };
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if Self::alignment(layout) <= MALLOC_ALIGN {
            // SAFETY: the caller promises that it came from here.
            return or_end(unsafe { libc::realloc(memory.cast(), new_size) }.cast(), new_size);
        }
        // SAFETY: the caller promises that the new size with this alignment is a layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that the new size is not zero.
        let new = unsafe { self.alloc(new_layout) };
        // SAFETY: both are at least so long and distinct; the old one is given up.
        unsafe {
            ptr::copy_nonoverlapping(memory, new, layout.size().min(new_size));
            self.dealloc(memory, layout);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES, Line, within};

    #[test]
    fn the_last_line_is_whole_however_long_the_directory() {
        let said = |kept: &str| {
            let line = Line::exhausted(4096, kept);
            String::from_utf8(line.as_bytes().to_vec()).expect("it was text")
        };
        let plain = said("");
        assert!(plain.starts_with("cellbench: error: no memory for 4096 bytes more; "), "{plain}");
        assert!(plain.ends_with("cgroup)\n") && plain.lines().count() == 1, "{plain}");
        assert!(said("runs/1").ends_with("is kept: `cellbench report runs/1`\n"));
        let long = said(&"x".repeat(5000));
        assert!(long.ends_with("xx\n") && long.len() == 1024 && long.lines().count() == 1);
    }

    #[test]
    fn within_every_allocation_begins_a_line_and_keeps_its_contents() {
        let mut outside: Vec<u8> = vec![7; 3];
        let inside = within(|| {
            outside.extend([8; 100]);
            (0..20).map(|size| vec![0_u8; size + 1]).collect::<Vec<_>>()
        });
        assert!(outside.as_ptr().addr().is_multiple_of(LINE_BYTES));
        assert_eq!((&outside[..4], outside.len()), (&[7, 7, 7, 8][..], 103));
        assert!(inside.iter().all(|bytes| bytes.as_ptr().addr().is_multiple_of(LINE_BYTES)));
        outside.extend([9; 1000]);
        assert_eq!((outside[2], outside[102], outside[1102]), (7, 8, 9));
    }
}
