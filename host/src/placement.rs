//! Choosing N CPUs by what they share: the distance between workers is the first thing a
//! contended number depends on.
//!
//! Every order starts with fast cores before slow ones and takes one CPU of each core before any
//! core's second, except [`Placement::Smt`], whose purpose is the opposite.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::cpus::CpuId;
use super::topology::{CoreKind, Cpu, Topology};

/// How to spread N threads over a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// As close as possible: one per core within a last-level cache, then the next cache of the
    /// same node and package, then the next package; siblings last.
    Compact,
    /// As far as possible: in turn over packages, nodes and last-level caches, one per core;
    /// siblings last.
    Spread,
    /// Siblings together: all CPUs of a core, then the next core, in compact order.
    Smt,
}

/// Why there is no such choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Zero CPUs asked for.
    #[error("asked for 0 CPUs; ask for 1 to {usable}")]
    Zero {
        /// CPUs that can be used.
        usable: usize,
    },
    /// More than there are.
    #[error(
        "asked for {asked} CPUs, but this process may use {usable} ({online} online); ask for 1 to {usable}"
    )]
    TooMany {
        /// CPUs asked for.
        asked: usize,
        /// CPUs that can be used.
        usable: usize,
        /// CPUs online.
        online: usize,
    },
    /// Sibling placement on a host, or cpuset, that has fewer siblings.
    #[error(
        "asked for {asked} SMT sibling{s}, but only {with_siblings} of the {usable} usable CPUs are on cores with two or more usable siblings; use placement compact or spread, or turn SMT on",
        s = if *asked == 1 { "" } else { "s" }
    )]
    NotEnoughSiblings {
        /// CPUs asked for.
        asked: usize,
        /// CPUs on cores with at least two usable siblings.
        with_siblings: usize,
        /// CPUs that can be used.
        usable: usize,
    },
}

/// A name that is no placement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown placement `{0}`; known are compact, spread and smt")]
pub struct UnknownPlacement(String);

impl Placement {
    /// Every placement, in the order reports use.
    pub const ALL: [Self; 3] = [Self::Compact, Self::Spread, Self::Smt];

    /// Returns the name on the command line and in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Spread => "spread",
            Self::Smt => "smt",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Placement {
    type Err = UnknownPlacement;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|placement| placement.name() == name);
        known.ok_or_else(|| UnknownPlacement(name.to_owned()))
    }
}

/// The usable CPUs of one core, first sibling first.
type Core = Vec<CpuId>;

/// Cores that share a last-level cache (or, where the host does not describe it, a node or a
/// package), by where they are.
struct Group {
    package: Option<u32>,
    node: Option<u32>,
    cores: Vec<Core>,
}

impl Topology {
    /// Returns the first `n` usable CPUs in the order of `placement`: worker i goes to the i-th.
    ///
    /// # Errors
    /// [`PlacementError`], which says how many CPUs there are.
    pub fn place(&self, placement: Placement, n: usize) -> Result<Vec<CpuId>, PlacementError> {
        let usable = self.usable.len();
        if n == 0 {
            return Err(PlacementError::Zero { usable });
        }
        if n > usable {
            return Err(PlacementError::TooMany { asked: n, usable, online: self.cpus.len() });
        }
        let mut cores = [CoreKind::Performance, CoreKind::Efficiency]
            .into_iter()
            .flat_map(|kind| {
                let groups = self.groups(kind);
                match placement {
                    Placement::Compact | Placement::Smt => compact(groups),
                    Placement::Spread => spread(groups),
                }
            })
            .collect::<Vec<Core>>();
        let mut order = if placement == Placement::Smt {
            cores.retain(|core| core.len() > 1);
            let with_siblings = cores.iter().map(Vec::len).sum();
            if n > with_siblings {
                return Err(PlacementError::NotEnoughSiblings { asked: n, with_siblings, usable });
            }
            cores.concat()
        } else {
            by_sibling(&cores)
        };
        order.truncate(n);
        Ok(order)
    }

    /// Returns the usable cores of one kind in groups, in order of package, node and first CPU.
    fn groups(&self, kind: CoreKind) -> Vec<Group> {
        let mut groups: BTreeMap<_, BTreeMap<u32, Vec<&Cpu>>> = BTreeMap::new();
        for cpu in self.usable_cpus().filter(|cpu| cpu.kind == kind) {
            let key = (cpu.package, cpu.numa_node, cpu.llc);
            groups.entry(key).or_default().entry(cpu.core).or_default().push(cpu);
        }
        groups
            .into_iter()
            .map(|((package, node, _), cores)| Group {
                package,
                node,
                cores: cores
                    .into_values()
                    .map(|cpus| cpus.iter().map(|cpu| cpu.id).collect())
                    .collect(),
            })
            .collect()
    }
}

/// Takes the groups one after the other, starting with the one that has most cores (a cpuset may leave
/// stumps) and staying in its package and node while it can.
fn compact(mut groups: Vec<Group>) -> Vec<Core> {
    // `max_by_key` keeps the last of equals; reversed, that is the first.
    let Some(start) = groups.iter().rev().max_by_key(|group| group.cores.len()) else {
        return Vec::new();
    };
    let (package, node) = (start.package, start.node);
    groups.sort_by_key(|group| {
        let (other_package, other_node) = (group.package != package, group.node != node);
        (other_package, group.package, other_node, group.node, Reverse(group.cores.len()))
    });
    groups.into_iter().flat_map(|group| group.cores).collect()
}

/// Takes CPUs in turn over packages, within each over nodes, within each over groups.
fn spread(groups: Vec<Group>) -> Vec<Core> {
    let packages = split_by(groups, |group| group.package).into_iter().map(|package| {
        let nodes = split_by(package, |group| group.node).into_iter();
        in_turn(
            nodes
                .map(|node| in_turn(node.into_iter().map(|group| group.cores).collect()))
                .collect(),
        )
    });
    in_turn(packages.collect())
}

/// Returns the groups of each value of `key`, in its order.
fn split_by(groups: Vec<Group>, key: impl Fn(&Group) -> Option<u32>) -> Vec<Vec<Group>> {
    let mut parts: BTreeMap<_, Vec<Group>> = BTreeMap::new();
    for group in groups {
        parts.entry(key(&group)).or_default().push(group);
    }
    parts.into_values().collect()
}

/// Returns the first of each list, then the second of each, and so on.
fn in_turn<T>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let mut order = Vec::new();
    loop {
        let before = order.len();
        order.extend(lists.iter_mut().filter_map(Iterator::next));
        if order.len() == before {
            return order;
        }
    }
}

/// Returns the first sibling of every core, then every second, and so on.
fn by_sibling(cores: &[Core]) -> Vec<CpuId> {
    let width = cores.iter().map(Vec::len).max().unwrap_or(0);
    (0..width)
        .flat_map(|sibling| cores.iter().filter_map(move |core| core.get(sibling).copied()))
        .collect()
}
