//! A value at the start of a cache line of its own.

use std::ops::{Deref, DerefMut};

/// A value aligned to a cache line of 64 bytes: which of its fields share a line does not depend on
/// the allocator, and nothing else shares its last line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(align(64))]
pub struct LineAligned<T>(pub T);

impl<T> Deref for LineAligned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for LineAligned<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
