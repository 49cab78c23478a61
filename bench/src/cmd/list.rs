//! `cellbench list`: everything that has a name.

use std::fmt::Write as _;
use std::process::ExitCode;

use cellbench_impls::AsyncCell;
use cellbench_impls::footprint::footprints;
use cellbench_impls::platform::Native;
use cellbench_impls::registry::{CellVisitor, LOCKS, PEERS, visit_cell};
use cellbench_impls::source::Source;
use cellbench_sim::MachineModel;
use cellbench_workloads::primitives::PRIMITIVES;
use cellbench_workloads::registry::WORKLOADS;
use cellbench_workloads::{EngineNeed, Serves, Subject};
use serde_json::json;

use cellbench_host::Placement;
use cellbench_measure::cmd::output;
use cellbench_measure::session::subject::EPOCH;

/// List cells, locks, workloads, placements and simulated machines
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Properties that a cell's type declares.
struct Properties {
    nmi_safe: bool,
    cancels: bool,
}

struct Describe;

impl CellVisitor<Native> for Describe {
    type Output = Properties;

    fn visit<C: AsyncCell<Native>>(self) -> Properties {
        Properties { nmi_safe: C::NMI_SAFE, cancels: C::CANCELS }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.json {
        output::emit_json(&as_json())?;
    } else {
        output::emit(&as_text()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn engine(need: EngineNeed) -> &'static str {
    match need {
        EngineNeed::Count => "count",
        EngineNeed::Live => "live",
    }
}

fn kinds(serves: Serves) -> Vec<&'static str> {
    let served = Subject::ALL.into_iter().filter(|subject| serves.serves(*subject));
    served.map(Subject::name).collect()
}

fn source(source: Source) -> serde_json::Value {
    json!({ "revision": source.label, "date": source.date, "reference": source.reference })
}

fn machines() -> impl Iterator<Item = (&'static str, String)> {
    MachineModel::preset_names().map(|name| {
        let title =
            MachineModel::preset(name).map_or_else(|error| error.to_string(), |model| model.title);
        (name, title)
    })
}

fn as_json() -> serde_json::Value {
    let cells: Vec<_> = footprints()
        .iter()
        .filter_map(|cell| {
            let entry = cell.entry;
            let is = visit_cell::<Native, _>(entry.id, entry.kind, Describe)?;
            let lines: serde_json::Map<String, serde_json::Value> = cell
                .operations
                .iter()
                .map(|of| {
                    (of.operation.to_owned(), json!({ "touched": of.lines, "written": of.written }))
                })
                .collect();
            Some(json!({
                "cell": entry.id, "kind": entry.kind.name(), "about": entry.about,
                "label": entry.label, "group": entry.group.name(), "source": source(entry.source),
                "cell_bytes": cell.bytes.cell_bytes, "block_bytes": cell.bytes.block_bytes,
                "lines": lines, "nmi_safe": is.nmi_safe, "cancels": is.cancels,
            }))
        })
        .collect();
    let locks: Vec<_> = LOCKS
        .iter()
        .map(|lock| (lock, false))
        .chain(PEERS.iter().map(|lock| (lock, true)))
        .map(|(lock, peer)| {
            json!({
                "lock": lock.id, "about": lock.about, "peer": peer,
                "group": lock.group.name(), "source": source(lock.source),
            })
        })
        .collect();
    let primitives: Vec<_> = PRIMITIVES
        .iter()
        .map(|primitive| json!({ "primitive": primitive.id, "about": primitive.about }))
        .collect();
    let workloads: Vec<_> = WORKLOADS
        .iter()
        .map(|workload| {
            json!({
                "workload": workload.id, "about": workload.about,
                "kinds": kinds(workload.serves), "engine": engine(workload.engine),
            })
        })
        .collect();
    let machines: Vec<_> =
        machines().map(|(name, title)| json!({ "machine": name, "about": title })).collect();
    json!({
        "cells": cells, "locks": locks, "primitives": primitives, "workloads": workloads,
        "placements": Placement::ALL.map(Placement::name), "machines": machines,
    })
}

fn as_text() -> Result<String, std::fmt::Error> {
    let mut text = String::from(
        "Cells: bytes in the map value + in the control block; cache lines that each operation\n\
         touches, of them written, when nobody else is there\n",
    );
    for cell in footprints() {
        let entry = cell.entry;
        let bytes = format!("{}+{}", cell.bytes.cell_bytes, cell.bytes.block_bytes);
        writeln!(text, "  {:<20} {:<9} {bytes:>7}  {}", entry.id, entry.kind, entry.about)?;
        let lines: Vec<String> = cell
            .operations
            .iter()
            .map(|of| format!("{} {}/{}", of.operation, of.lines, of.written))
            .collect();
        for some in lines.chunks(4) {
            writeln!(text, "  {:<20} {}", "", some.join("  "))?;
        }
    }
    writeln!(text, "  NAME{EPOCH}: the cell with epochs (crossbeam-epoch) in place of RCU")?;
    writeln!(text, "\nLocks (kind lock)")?;
    for lock in LOCKS.iter().chain(PEERS) {
        writeln!(text, "  {:<20} {}", lock.id, lock.about)?;
    }
    writeln!(text, "\nPrimitives (kind primitive)")?;
    for primitive in PRIMITIVES {
        writeln!(text, "  {:<20} {}", primitive.id, primitive.about)?;
    }
    writeln!(text, "\nWorkloads")?;
    for workload in WORKLOADS {
        let of = kinds(workload.serves).join(",");
        writeln!(
            text,
            "  {:<20} {}\n  {:<20} for {of}; engine {}",
            workload.id,
            workload.about,
            "",
            engine(workload.engine)
        )?;
    }
    writeln!(text, "\nPlacements")?;
    for (placement, about) in Placement::ALL.into_iter().zip([
        "one CPU per core within a last-level cache first",
        "across packages, nodes and last-level caches in turn",
        "SMT siblings together",
    ]) {
        writeln!(text, "  {:<20} {about}", placement.name())?;
    }
    writeln!(text, "\nSimulated machines")?;
    for (name, title) in machines() {
        writeln!(text, "  {name:<20} {title}")?;
    }
    Ok(text)
}
