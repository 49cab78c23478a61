//! Names of kernel addresses.

/// Sorted symbols of a kernel.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    by_address: Vec<(u64, String)>,
    end: u64,
    per_cpu: Option<(u64, u64)>,
}

/// Names that mark a place and say nothing of what is there.
const MARKS: &[&str] =
    &["_text", "_stext", "_sdata", "_edata", "_end", "__per_cpu_start", "__per_cpu_end"];

impl Symbols {
    /// Sorts addresses and names, given in any order.
    #[must_use]
    pub fn new(mut by_address: Vec<(u64, String)>) -> Self {
        // Of several names of one address a telling one, then the first by name: the same every time.
        by_address.sort_by(|a, b| {
            let rank = |(at, name): &(u64, String)| {
                (*at, MARKS.contains(&name.as_str()), name.starts_with('_'), name.clone())
            };
            rank(a).cmp(&rank(b))
        });
        let at = |name: &str| by_address.iter().find(|(_, n)| n == name).map(|(at, _)| *at);
        let end = at("_end").unwrap_or(u64::MAX);
        let per_cpu = at("__per_cpu_start").zip(at("__per_cpu_end"));
        by_address.dedup_by_key(|(at, _)| *at);
        Self { by_address, end, per_cpu }
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Returns the symbol that an address lies in or behind, and how far behind its start.
    #[must_use]
    pub fn name(&self, at: u64) -> Option<(&str, u64)> {
        let after = self.by_address.partition_point(|(start, _)| *start <= at);
        let (start, name) = self.by_address.get(after.checked_sub(1)?)?;
        Some((name, at - start))
    }

    /// Returns the symbol that begins at an address.
    #[must_use]
    pub fn starts(&self, at: u64) -> Option<&str> {
        self.name(at).filter(|(_, offset)| *offset == 0).map(|(name, _)| name)
    }

    /// Returns whether an address is code outside the kernel image: of a BPF program, or of a
    /// module.
    #[must_use]
    pub fn is_outside(&self, at: u64) -> bool {
        at >= self.end
    }

    /// Returns whether an address lies in the kernel image.
    #[must_use]
    pub fn is_inside(&self, at: u64) -> bool {
        const IMAGE: u64 = 0xffff_ffff_8000_0000;
        (IMAGE..self.end).contains(&at)
    }

    /// Returns whether an address, the CPU's own offset taken away, is that of a per-CPU variable.
    #[must_use]
    pub fn is_per_cpu(&self, at: u64) -> bool {
        self.per_cpu.is_some_and(|(start, end)| (start..end).contains(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        let all = [
            (0x1000, "_stext"),
            (0x1000, "start_kernel"),
            (0x1000, "__alias"),
            (0x1100, "bpf_timer_start"),
            (0x2000, "_end"),
            (0, "__per_cpu_start"),
            (0x40, "hrtimer_bases"),
            (0x80, "__per_cpu_end"),
        ];
        Symbols::new(all.map(|(at, name)| (at, name.to_owned())).to_vec())
    }

    #[test]
    fn an_address_has_the_most_telling_name() {
        let symbols = symbols();
        assert_eq!(symbols.name(0x1010), Some(("start_kernel", 0x10)));
        assert_eq!(symbols.starts(0x1100), Some("bpf_timer_start"));
        assert_eq!(symbols.starts(0x1101), None);
    }

    #[test]
    fn code_of_programs_is_outside() {
        let symbols = symbols();
        assert!(symbols.is_outside(0x2000) && !symbols.is_outside(0x1fff));
        assert!(symbols.is_per_cpu(0x40) && !symbols.is_per_cpu(0x80));
    }
}
