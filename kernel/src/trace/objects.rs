//! Names what an address belongs to: an object of the row and its field, a variable of the kernel.

use std::collections::BTreeMap;

use super::log::{Layout, Log, Told};
use super::path::{Operation, Path};
use super::raw::Window;
use super::symbols::Symbols;

/// Bytes of a cache line.
pub const LINE: u64 = 64;

/// Object and field that an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Object: `cell`, `block`, `prog`, a variable's name, `heap`, `per-CPU`, `stack`.
    pub object: String,
    /// Line of the object, counted from its start; of the heap, lines in order of first use.
    pub line: u64,
    /// Field with its structure's nesting, or the offset.
    pub field: String,
}

impl Place {
    /// Writes object and field as text: `block.cb.refcnt`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.field.is_empty() {
            true => self.object.clone(),
            false => format!("{}.{}", self.object, self.field),
        }
    }

    /// Returns whether other CPUs may use it: no stack, nor what a CPU keeps for itself.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        !matches!(self.object.as_str(), "stack" | "per-CPU" | "task")
    }
}

#[derive(Debug)]
struct Region {
    start: u64,
    size: u64,
    object: &'static str,
    structure: &'static str,
}

/// Names addresses of one window.
#[derive(Debug)]
pub struct Objects<'l> {
    symbols: &'l Symbols,
    layouts: &'l BTreeMap<String, Layout>,
    regions: Vec<Region>,
    per_cpu_offset: Option<u64>,
    /// Lines of the heap by order of first use.
    heap: Vec<u64>,
}

/// Returns the structures of a kind's cell and of what the cell points to, by the names of all
/// generations.
fn structures(row: &str) -> (&'static [&'static str], &'static [&'static str]) {
    const CELL: &[&str] = &["bpf_async_kern", "bpf_timer_kern"];
    if row.starts_with("timer") {
        (CELL, &["bpf_hrtimer"])
    } else if row.starts_with("wq") {
        (CELL, &["bpf_work"])
    } else if row.starts_with("task_work") {
        (&["bpf_task_work_kern"], &["bpf_task_work_ctx"])
    } else {
        (&[], &[])
    }
}

impl<'l> Objects<'l> {
    /// Returns the objects of a window of a row.
    #[must_use]
    pub fn new(log: &'l Log, row: &str, told: &Told, path: &Path, window: &Window) -> Self {
        let mut objects = Self {
            symbols: &log.symbols,
            layouts: &log.layouts,
            regions: Vec::new(),
            per_cpu_offset: path.per_cpu_offset,
            heap: Vec::new(),
        };
        let known = |names: &'static [&'static str]| {
            names.iter().copied().find(|name| log.layouts.contains_key(*name))
        };
        let (cell, block) = structures(row);
        if let Some(at) = told.objects.get("value") {
            objects.add(*at, "cell", known(cell).unwrap_or("bpf_spin_lock"));
        }
        if let Some(block) = known(block) {
            let given = told.objects.get("block").copied();
            if let Some(at) = given.filter(|at| *at > u64::MAX / 2) {
                objects.add(at, "block", block);
                objects.pointers(told, block);
            }
            for at in made(path, window, &objects) {
                objects.add(at, "block", block);
            }
        }
        if let Some(at) = told.objects.get("task") {
            objects.add(*at, "task", "task_struct");
        }
        objects
    }

    fn add(&mut self, start: u64, object: &'static str, structure: &'static str) {
        let size = self.layouts.get(structure).map_or(8, |layout| u64::from(layout.size));
        if !self.regions.iter().any(|region| region.start == start) {
            self.regions.push(Region { start, size, object, structure });
        }
    }

    /// Adds the objects that the block points to.
    fn pointers(&mut self, told: &Told, block: &'static str) {
        let Some(layout) = self.layouts.get(block) else { return };
        let to = [
            ("cb.prog", "prog", "bpf_prog"),
            ("prog", "prog", "bpf_prog"),
            ("cb.map", "map", "bpf_array"),
            ("map", "map", "bpf_array"),
        ];
        let found: Vec<_> = to
            .iter()
            .filter_map(|(field, object, structure)| {
                let at = told.words.get(&(layout.offset_of(field)? / 8))?;
                (*at > u64::MAX / 2).then_some((*at, *object, *structure))
            })
            .collect();
        for (at, object, structure) in found {
            self.add(at, object, structure);
        }
    }

    fn field(&self, structure: &str, offset: u64) -> String {
        let named = self
            .layouts
            .get(structure)
            .and_then(|layout| layout.field_at(u32::try_from(offset).ok()?))
            .map(str::to_owned);
        named.unwrap_or_else(|| format!("+{offset}"))
    }

    fn variable(&self, at: u64) -> Option<(String, u64)> {
        let (name, offset) = self.symbols.name(at)?;
        Some((name.to_owned(), offset))
    }

    /// Returns what an address belongs to, given the stacks in use by number.
    pub fn place(&mut self, at: u64, stacks: &[u64]) -> Place {
        let place = |object: &str, line, field| Place { object: object.to_owned(), line, field };
        if let Some(region) = self.regions.iter().find(|r| at >= r.start && at - r.start < r.size) {
            let offset = at - region.start;
            return place(region.object, offset / LINE, self.field(region.structure, offset));
        }
        if stacks.contains(&(at >> 14)) {
            return place("stack", 0, String::new());
        }
        if let Some(symbol) = self.per_cpu_offset.map(|offset| at.wrapping_sub(offset))
            && self.symbols.is_per_cpu(symbol)
            && let Some((name, offset)) = self.variable(symbol)
        {
            let structure = match name.as_str() {
                "hrtimer_bases" => "hrtimer_cpu_base",
                "rqspinlock_held_locks" => "rqspinlock_held",
                _ => "",
            };
            let field = match (structure, offset) {
                ("", 0) => name,
                ("", _) => format!("{name}+{offset}"),
                _ => format!("{name}.{}", self.field(structure, offset)),
            };
            return place("per-CPU", symbol / LINE, field);
        }
        if self.symbols.is_inside(at)
            && let Some((name, offset)) = self.variable(at)
        {
            let field = if offset == 0 { String::new() } else { format!("+{offset}") };
            return place(&name, offset / LINE, field);
        }
        let line = at / LINE;
        let index = self.heap.iter().position(|known| *known == line).unwrap_or_else(|| {
            self.heap.push(line);
            self.heap.len() - 1
        });
        place("heap", index as u64, format!("{index}+{}", at % LINE))
    }
}

/// Returns whether an address lies in the direct mapping of memory, where objects lie; stacks and
/// cells are
/// mapped elsewhere. With page tables of four and of five levels
/// (Documentation/arch/x86/x86_64/mm.rst).
fn is_mapped_memory(at: u64) -> bool {
    const FOUR: std::ops::Range<u64> = 0xffff_8880_0000_0000..0xffff_c900_0000_0000;
    const FIVE: std::ops::Range<u64> = 0xff11_0000_0000_0000..0xff91_0000_0000_0000;
    FOUR.contains(&at) || FIVE.contains(&at)
}

/// Returns addresses of blocks that a window itself made: of what the initialising function
/// writes, and no
/// object is known for, the lowest in each stretch of 256 bytes.
fn made(path: &Path, window: &Window, objects: &Objects<'_>) -> Vec<u64> {
    const MAKERS: [&str; 3] = ["__bpf_async_init", "bpf_timer_init", "bpf_wq_init"];
    let is_maker = |operation: &&Operation| MAKERS.contains(&operation.name.as_str());
    let mut found: Vec<u64> = Vec::new();
    for operation in path.operations.iter().filter(is_maker) {
        let mut lowest: Option<u64> = None;
        for executed in &operation.steps {
            let step = &window.steps[executed.at];
            let by_maker =
                objects.symbols.name(step.pc).is_some_and(|(name, _)| MAKERS.contains(&name));
            let places =
                step.accesses.iter().filter(|a| by_maker && a.store && !executed.class.stack);
            for access in places {
                let known =
                    objects.regions.iter().any(|r| access.at.wrapping_sub(r.start) < r.size);
                let per_cpu = objects.per_cpu_offset.is_some_and(|offset| {
                    objects.symbols.is_per_cpu(access.at.wrapping_sub(offset))
                });
                if is_mapped_memory(access.at) && !known && !per_cpu {
                    lowest = Some(lowest.map_or(access.at, |low| low.min(access.at)));
                }
            }
        }
        found.extend(lowest);
    }
    found
}
