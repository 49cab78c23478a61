//! Errors as the kernel returns and prints them.

use core::fmt;

/// Result of an operation: `Ok`, or the reason for which it did nothing.
pub type Outcome = Result<(), Errno>;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// A kernel error number.
        #[allow(clippy::upper_case_acronyms)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Errno {
            $($(#[$doc])* $name,)*
        }

        impl Errno {
            /// All of them, in the order of their numbers; an errno's place here is its index.
            pub const ALL: &'static [Errno] = &[$(Errno::$name,)*];

            /// Returns the name as the kernel's `%pe` prints it without the sign.
            pub const fn name(self) -> &'static str {
                match self { $(Errno::$name => stringify!($name),)* }
            }

            /// Returns the number, positive.
            pub const fn number(self) -> i32 {
                match self { $(Errno::$name => $number,)* }
            }
        }
    };
}

errnos! {
    /// The map was abandoned, or the cell freed.
    EPERM = 1,
    /// The object is on its way out.
    ENOENT = 2,
    /// Bad reference (task work: program or map going away).
    EBADF = 9,
    /// A concurrent change of the data that was read.
    EAGAIN = 11,
    /// No memory that this context may take.
    ENOMEM = 12,
    /// Another operation is in the way.
    EBUSY = 16,
    /// Bad argument, or not initialised.
    EINVAL = 22,
    /// Waiting would never end.
    EDEADLK = 35,
    /// Not in this context.
    EOPNOTSUPP = 95,
    /// Waited too long.
    ETIMEDOUT = 110,
    /// Left to an `irq_work`, which cancels later.
    ECANCELED = 125,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn the_order_is_that_of_the_numbers() {
        assert!(Errno::ALL.is_sorted_by_key(|errno| errno.number()));
        for (index, errno) in Errno::ALL.iter().enumerate() {
            assert_eq!(*errno as usize, index);
        }
    }

    #[test]
    fn prints_like_the_kernel() {
        assert_eq!(format!("{:>8}", Errno::EBUSY), "   EBUSY");
        assert_eq!(Errno::ETIMEDOUT.number(), libc::ETIMEDOUT);
        assert_eq!(Errno::EDEADLK.number(), libc::EDEADLK);
    }
}
