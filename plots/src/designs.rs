//! Order and looks of the cells and locks of a run.
//!
//! A run names its designs with their order and group (`designs` in `run.json`, written from the
//! registry of the cells). A run of an older writer does not: its order is then its baseline and the
//! other names in alphabetical order, and a name that extends another (`rqspin-byte`) is of its group.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cellbench_record::{Kind, Run, Series};

/// Place and look of a design.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Design {
    /// Place among all designs of the run.
    pub rank: usize,
    /// Number of its group, by which it has its colour.
    pub group: usize,
    /// Number among the cells, or among the locks, by which it has its marker.
    pub number: usize,
    /// Name for readers.
    pub label: String,
}

/// The designs of a run by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Designs(HashMap<String, Design>);

impl Designs {
    /// Returns the designs that `run` names, and after them those that only its rows name.
    #[must_use]
    pub fn of<'a>(run: &Run, baseline: &str, rows: impl IntoIterator<Item = &'a Series>) -> Self {
        // Whether a name is that of a lock; merged runs name each their own.
        let mut names: BTreeMap<&str, bool> = BTreeMap::new();
        let mut order: BTreeSet<(usize, u32, &str)> = BTreeSet::new();
        let mut groups: HashMap<&str, &str> = HashMap::new();
        let mut labels: HashMap<&str, &str> = HashMap::new();
        for design in std::iter::once(run).chain(&run.merged_from).flat_map(|run| &run.designs) {
            if names.insert(&design.id, design.kind == "lock").is_none() {
                order.insert((0, design.order, &design.id));
                if !design.group.is_empty() {
                    groups.insert(&design.id, &design.group);
                }
                if !design.label.is_empty() {
                    labels.insert(&design.id, &design.label);
                }
            }
        }
        for series in rows {
            let name = series.cell.as_str();
            if !names.contains_key(name) {
                names.insert(name, series.kind == Kind::Lock);
                order.insert((if name == baseline { 1 } else { 2 }, 0, name));
            }
        }
        let all: Vec<&str> = order.into_iter().map(|(_, _, name)| name).collect();
        let mut numbers = [0; 2];
        let mut known_groups: Vec<&str> = Vec::new();
        let mut designs = HashMap::new();
        for (rank, name) in all.iter().enumerate() {
            let group = groups.get(name).copied().unwrap_or_else(|| stem(name, &all));
            let group =
                known_groups.iter().position(|known| *known == group).unwrap_or_else(|| {
                    known_groups.push(group);
                    known_groups.len() - 1
                });
            let number = &mut numbers[usize::from(names[name])];
            let label = labels.get(name).copied().unwrap_or(name).to_owned();
            designs.insert((*name).to_owned(), Design { rank, group, number: *number, label });
            *number += 1;
        }
        Self(designs)
    }

    /// Returns the place of a design, after all others for one that is not known.
    #[must_use]
    pub fn rank(&self, cell: &str) -> usize {
        self.0.get(cell).map_or(usize::MAX, |design| design.rank)
    }

    /// Returns the design of a name.
    #[must_use]
    pub fn get(&self, cell: &str) -> Option<&Design> {
        self.0.get(cell)
    }
}

/// Returns the shortest name that `name` extends by a dash and more.
fn stem<'a>(name: &'a str, all: &[&'a str]) -> &'a str {
    let is_stem = |other: &&&str| {
        name.strip_prefix(**other).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    all.iter().filter(is_stem).min_by_key(|other| other.len()).copied().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellbench_record::Source;

    fn row(cell: &str, kind: Kind) -> Series {
        Series::new(cell, kind, "update", 1, "compact", Source::Model)
    }

    #[test]
    fn a_run_names_order_and_group() {
        let design = |id: &str, order, group: &str| cellbench_record::Design {
            id: id.into(),
            order,
            group: group.into(),
            ..cellbench_record::Design::default()
        };
        let run = Run {
            designs: vec![design("new", 7, "first"), design("old", 2, "first")],
            ..Run::default()
        };
        let rows = [row("old", Kind::Timer), row("stray", Kind::Timer), row("new", Kind::Timer)];
        let designs = Designs::of(&run, "old", &rows);
        let ranks = ["old", "new", "stray", "none"].map(|name| designs.rank(name));
        assert_eq!(ranks, [0, 1, 2, usize::MAX]);
        assert_eq!(designs.get("old").unwrap().group, designs.get("new").unwrap().group);
        assert_ne!(designs.get("old").unwrap().number, designs.get("new").unwrap().number);
    }

    #[test]
    fn an_older_run_has_its_baseline_first_and_variants_with_their_stem() {
        let rows = [
            row("rqspin-byte", Kind::Timer),
            row("rqspin", Kind::Timer),
            row("spin-queued", Kind::Timer),
            row("a-lock", Kind::Lock),
        ];
        let designs = Designs::of(&Run::default(), "spin-queued", &rows);
        assert_eq!(designs.rank("spin-queued"), 0);
        let of = |name: &str| designs.get(name).unwrap();
        assert_eq!(of("rqspin").group, of("rqspin-byte").group);
        // Locks have markers of their own: no chart shows both.
        assert_eq!((of("a-lock").number, of("spin-queued").number), (0, 0));
    }
}
