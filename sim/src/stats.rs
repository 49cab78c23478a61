//! Counting while the simulation runs: rows by label and operation, totals by line.

use std::collections::{BTreeMap, BTreeSet};

use crate::costs::Ps;
use crate::slot::NO_CORE;

/// Counters of one label under one operation, in events and picoseconds; `report::Counters` is
/// the public form and says what each means.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Row {
    pub(crate) loads: u64,
    pub(crate) stores: u64,
    pub(crate) rmws: u64,
    pub(crate) hits: u64,
    /// By [`crate::machine::Distance`]; there are none within a core.
    pub(crate) transfers: [u64; 4],
    pub(crate) llc_fills: u64,
    pub(crate) memory_fills: u64,
    pub(crate) rfos: u64,
    pub(crate) upgrades: u64,
    pub(crate) hitms: u64,
    pub(crate) invalidations: u64,
    pub(crate) writebacks: u64,
    pub(crate) false_sharing: u64,
    pub(crate) wait: Ps,
    pub(crate) spin: Ps,
    pub(crate) spin_loads: u64,
}

impl Row {
    pub(crate) fn add(&mut self, other: &Self) {
        self.loads += other.loads;
        self.stores += other.stores;
        self.rmws += other.rmws;
        self.hits += other.hits;
        for (mine, theirs) in self.transfers.iter_mut().zip(other.transfers) {
            *mine += theirs;
        }
        self.llc_fills += other.llc_fills;
        self.memory_fills += other.memory_fills;
        self.rfos += other.rfos;
        self.upgrades += other.upgrades;
        self.hitms += other.hitms;
        self.invalidations += other.invalidations;
        self.writebacks += other.writebacks;
        self.false_sharing += other.false_sharing;
        self.wait += other.wait;
        self.spin += other.spin;
        self.spin_loads += other.spin_loads;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.loads + self.stores + self.rmws == 0
    }
}

/// A word in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Label, as the statistics number them.
    pub(crate) label: u32,
    /// Bytes from the start of the line.
    pub(crate) offset: u8,
    pub(crate) first_writer: u16,
    pub(crate) many_writers: bool,
}

impl Member {
    /// Returns whether some core writes this word and another core writes the other one.
    pub(crate) fn written_apart(&self, other: &Self) -> bool {
        self.first_writer != NO_CORE
            && other.first_writer != NO_CORE
            && (self.many_writers || other.many_writers || self.first_writer != other.first_writer)
    }
}

/// Totals of one line, or of all lines with the same fields.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LineTotals {
    pub(crate) lines: u64,
    pub(crate) transfers: u64,
    pub(crate) invalidations: u64,
    pub(crate) false_sharing: u64,
    pub(crate) wait: Ps,
    pub(crate) longest_queue: u64,
}

impl LineTotals {
    fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.transfers += other.transfers;
        self.invalidations += other.invalidations;
        self.false_sharing += other.false_sharing;
        self.wait += other.wait;
        self.longest_queue = self.longest_queue.max(other.longest_queue);
    }
}

/// The fields in a line, by label text and offset, which identifies lines of one layout.
pub(crate) type Layout = Vec<(u8, &'static str)>;

/// Lines of one layout, and which of its fields were found falsely shared.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayoutTotals {
    pub(crate) totals: LineTotals,
    /// Pairs of positions in the layout whose words are written by different cores.
    pub(crate) apart: BTreeSet<(usize, usize)>,
}

/// Everything counted.
#[derive(Debug)]
pub(crate) struct Statistics {
    rows: Vec<Row>,
    operation_capacity: usize,
    pub(crate) operations: Vec<&'static str>,
    /// Dense number of each label of the OS thread, or `u32::MAX`.
    label_rows: Vec<u32>,
    /// Text of each dense label.
    pub(crate) labels: Vec<&'static str>,
    pub(crate) layouts: BTreeMap<Layout, LayoutTotals>,
}

impl Statistics {
    pub(crate) fn new() -> Self {
        Self {
            rows: Vec::new(),
            operation_capacity: 8,
            operations: vec![""],
            label_rows: Vec::new(),
            labels: Vec::new(),
            layouts: BTreeMap::new(),
        }
    }

    /// Returns the dense number of a label.
    pub(crate) fn label(&mut self, label: u32, text: &'static str) -> u32 {
        let label = label as usize;
        if label >= self.label_rows.len() {
            self.label_rows.resize(label + 1, u32::MAX);
        }
        if self.label_rows[label] == u32::MAX {
            self.label_rows[label] = self.labels.len() as u32;
            self.labels.push(text);
            self.rows.resize(self.labels.len() * self.operation_capacity, Row::default());
        }
        self.label_rows[label]
    }

    /// Returns the number of an operation.
    pub(crate) fn operation(&mut self, name: &'static str) -> u16 {
        if let Some(known) = self.operations.iter().position(|&other| other == name) {
            return known as u16;
        }
        assert!(self.operations.len() < 256, "more than 255 operation names in one simulation");
        self.operations.push(name);
        if self.operations.len() > self.operation_capacity {
            let old = std::mem::take(&mut self.rows);
            let capacity = self.operation_capacity;
            self.operation_capacity *= 2;
            self.rows.resize(self.labels.len() * self.operation_capacity, Row::default());
            for (label, rows) in old.chunks(capacity).enumerate() {
                let first = label * self.operation_capacity;
                self.rows[first..first + capacity].copy_from_slice(rows);
            }
        }
        (self.operations.len() - 1) as u16
    }

    /// Identifies the row of a label under an operation, for [`Statistics::row`]. It stays valid
    /// when operations are added.
    #[inline]
    pub(crate) fn key(label: u32, operation: u16) -> u32 {
        label << 8 | u32::from(operation)
    }

    #[inline]
    pub(crate) fn row(&mut self, key: u32) -> &mut Row {
        &mut self.rows[(key >> 8) as usize * self.operation_capacity + (key & 0xff) as usize]
    }

    pub(crate) fn names(&self, key: u32) -> (&'static str, &'static str) {
        (self.labels[(key >> 8) as usize], self.operations[(key & 0xff) as usize])
    }

    /// Returns the non-empty rows with label and operation, sorted by these.
    pub(crate) fn sorted_rows(&self) -> Vec<(&'static str, &'static str, Row)> {
        let mut rows: Vec<_> = self
            .rows
            .chunks(self.operation_capacity)
            .zip(&self.labels)
            .flat_map(|(rows, &label)| {
                rows.iter().zip(&self.operations).map(move |(row, &name)| (label, name, *row))
            })
            .filter(|(_, _, row)| !row.is_empty())
            .collect();
        rows.sort_by_key(|&(label, operation, _)| (label, operation));
        rows
    }

    /// Adds a line that ends, to the lines of its layout.
    pub(crate) fn retire_line(&mut self, members: &[Member], totals: &LineTotals) {
        if totals.transfers == 0 {
            return;
        }
        let mut members = members.to_vec();
        members.sort_by_key(|member| (member.offset, self.labels[member.label as usize]));
        let layout: Layout = members
            .iter()
            .map(|member| (member.offset, self.labels[member.label as usize]))
            .collect();
        let entry = self.layouts.entry(layout).or_default();
        entry.totals.add(&LineTotals { lines: 1, ..*totals });
        for first in 0..members.len() {
            for second in first + 1..members.len() {
                if members[first].written_apart(&members[second]) {
                    entry.apart.insert((first, second));
                }
            }
        }
    }
}
