//! The atomics of `shuttle`, which runs a test under many random schedules, all sequentially
//! consistent: longer histories than can be exhausted. See [`super::checked`].

super::checked::checked_memory!("shuttle", shuttle, super::checked::Sequential);
