//! The CPU affinity of the calling thread, without the 1024-CPU limit of `cpu_set_t`.
//!
//! The kernel refuses a mask shorter than its own (`EINVAL`), so the mask grows until it fits.

use std::io;

use super::cpus::{CpuId, CpuSet};

const WORD_BITS: usize = libc::c_ulong::BITS as usize;
/// Where growing stops: 2^20 CPUs, far beyond any kernel.
const MAX_MASK_BITS: usize = 1 << 20;

/// Returns CPUs the calling thread may run on: affinity and cpuset together, as the kernel applies
/// them.
///
/// # Errors
/// What `sched_getaffinity(2)` reports.
pub fn current() -> io::Result<CpuSet> {
    let mut mask: Vec<libc::c_ulong> = vec![0; 1024 / WORD_BITS];
    loop {
        // SAFETY: the pointer and the length in bytes describe `mask`, which outlives the call; the
        // kernel writes at most that many bytes. Thread 0 is the calling thread.
        let result = unsafe {
            libc::sched_getaffinity(0, size_of_val(mask.as_slice()), mask.as_mut_ptr().cast())
        };
        if result == 0 {
            return Ok(from_mask(&mask));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) || mask.len() * WORD_BITS >= MAX_MASK_BITS {
            return Err(error);
        }
        mask.resize(mask.len() * 2, 0);
    }
}

/// Restricts the calling thread to `cpus`; the kernel moves it there before this returns.
///
/// # Errors
/// What `sched_setaffinity(2)` reports: `EINVAL` if none of `cpus` is online and in the cpuset.
pub fn set_current(cpus: &CpuSet) -> io::Result<()> {
    let mask = to_mask(cpus);
    // SAFETY: the pointer and the length in bytes describe `mask`, which outlives the call and is
    // only read. Thread 0 is the calling thread.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of_val(mask.as_slice()), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns the CPU that the calling thread is on right now.
///
/// # Errors
/// What `sched_getcpu(3)` reports.
pub fn current_cpu() -> io::Result<CpuId> {
    // SAFETY: no arguments, no memory touched.
    let cpu = unsafe { libc::sched_getcpu() };
    u32::try_from(cpu).map(CpuId).map_err(|_| io::Error::last_os_error())
}

fn from_mask(mask: &[libc::c_ulong]) -> CpuSet {
    let set = |bit: &usize| mask[bit / WORD_BITS] >> (bit % WORD_BITS) & 1 == 1;
    (0..mask.len() * WORD_BITS).filter(set).map(|bit| CpuId(bit as u32)).collect()
}

fn to_mask(cpus: &CpuSet) -> Vec<libc::c_ulong> {
    let bits = cpus.last().map_or(0, |cpu| cpu.0 as usize + 1);
    let mut mask = vec![0; bits.div_ceil(WORD_BITS).max(1)];
    for cpu in cpus.iter() {
        mask[cpu.0 as usize / WORD_BITS] |= 1 << (cpu.0 as usize % WORD_BITS);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_hold_cpus_beyond_1024() {
        let cpus: CpuSet = "0,63-64,1023-1024,5000".parse().unwrap();
        let mask = to_mask(&cpus);
        assert_eq!(mask.len(), 5001_usize.div_ceil(WORD_BITS));
        assert_eq!(from_mask(&mask), cpus);
        assert_eq!(from_mask(&to_mask(&CpuSet::new())), CpuSet::new());
    }

    #[test]
    fn the_current_cpu_is_among_the_allowed_ones() {
        assert!(current().unwrap().contains(current_cpu().unwrap()));
    }
}
