//! A build of some designs only, for the edit loop: `CELLBENCH_ONLY=spin-queued,my-cell cargo bench`.
//!
//! Every design is compiled under every workload on several platforms, most of which a change to one
//! design does not need. With the variable set at build time the registry holds the named cells and
//! locks alone; `option_env!` has Cargo build again when it changes.

/// The names, separated by commas; all designs if unset.
const ONLY: Option<&str> = option_env!("CELLBENCH_ONLY");
/// Always built: what others are compared with, and what the instruments are calibrated on.
const BASELINE: &str = "spin-queued";

/// Returns whether the design of this name is built.
pub(crate) const fn is_built(id: &str) -> bool {
    match ONLY {
        Some(names) => is_listed(id, names) || is_listed(id, BASELINE),
        None => true,
    }
}

/// Returns whether `names`, separated by commas, hold `id`.
const fn is_listed(id: &str, names: &str) -> bool {
    let (id, names) = (id.as_bytes(), names.as_bytes());
    let (mut begin, mut index) = (0, 0);
    while index <= names.len() {
        if index == names.len() || names[index] == b',' {
            if same(id, names, begin, index) {
                return true;
            }
            begin = index + 1;
        }
        index += 1;
    }
    false
}

/// Returns whether `id` is what stands between two places of `names`.
const fn same(id: &[u8], names: &[u8], begin: usize, end: usize) -> bool {
    let mut index = 0;
    while index < id.len() && begin + index < end && id[index] == names[begin + index] {
        index += 1;
    }
    index == id.len() && begin + index == end
}

/// Returns how many of these names are built.
pub(crate) const fn count(ids: &[&str]) -> usize {
    let (mut count, mut index) = (0, 0);
    while index < ids.len() {
        count += is_built(ids[index]) as usize;
        index += 1;
    }
    count
}

/// Returns those of `all`, which are not none, whose names are built. `N` is their [`count`].
pub(crate) const fn keep<T: Copy, const N: usize>(all: &[T], ids: &[&str]) -> [T; N] {
    let mut kept = [all[0]; N];
    let (mut next, mut index) = (0, 0);
    while index < all.len() {
        if is_built(ids[index]) {
            kept[next] = all[index];
            next += 1;
        }
        index += 1;
    }
    kept
}

/// Ends the build if a name is none of these.
pub(crate) const fn assert_known(ids: [&[&str]; 3]) {
    let Some(names) = ONLY else { return };
    let names = names.as_bytes();
    let (mut begin, mut index) = (0, 0);
    while index <= names.len() {
        if index == names.len() || names[index] == b',' {
            let mut known = false;
            let mut list = 0;
            while list < ids.len() {
                let mut at = 0;
                while at < ids[list].len() {
                    known |= same(ids[list][at].as_bytes(), names, begin, index);
                    at += 1;
                }
                list += 1;
            }
            assert!(known, "CELLBENCH_ONLY has a name that impls/src/registry.rs has not");
            begin = index + 1;
        }
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::is_listed;

    #[test]
    fn names_are_whole() {
        for (id, names, listed) in [
            ("rqspin", "rqspin", true),
            ("rqspin", "spin-tas,rqspin", true),
            ("rqspin", "rqspin,spin-tas", true),
            ("rqspin", "rqspin-tas", false),
            ("rqspin-tas", "rqspin", false),
            ("rqspin", "", false),
            ("rqspin", "spin-tas,,spin-queued", false),
        ] {
            assert_eq!(is_listed(id, names), listed, "{id} in {names}");
        }
    }
}
