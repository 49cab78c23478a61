//! The atomics of `loom`, which runs a test in every interleaving that the C11 memory model
//! allows (exhaustively, or within a bound on preemptions). See [`super::checked`].

super::checked::checked_memory!("loom", loom);
