//! Compares the simulator with measurements by others, which `ground-truth/` holds.
//!
//! `cargo run --release -p cellbench-sim --example ground_truth` prints a table for each data set; with
//! an argument `NAME=VALUE` a figure of the machines is replaced first, to see what depends on it.

use cellbench_sim::MachineModel;
use cellbench_sim::truth::{self, Half};

fn main() {
    let changes: Vec<String> = std::env::args().skip(1).collect();
    let adjust = |machine: MachineModel| {
        let mut text: toml::Table = machine.to_toml().parse().expect("a machine is TOML");
        for change in &changes {
            let (name, value) = change.split_once('=').expect("NAME=VALUE");
            let (table, field) = name.split_once('.').expect("table.field");
            let value: toml::Value = toml::from_str::<toml::Table>(&format!("x = {value}"))
                .expect("a TOML value")["x"]
                .clone();
            text[table][field] = value;
        }
        MachineModel::parse("changed", &text.to_string()).expect("a possible machine")
    };
    for set in &truth::SETS {
        let rows = truth::compare(set, &adjust).expect("the data and presets are built in");
        println!("{}", set.title);
        for row in &rows {
            println!("{row}");
        }
        for half in [Half::Tuned, Half::HeldOut] {
            let summary = truth::summary(rows.iter().filter(|row| row.half() == half));
            match summary {
                Some(summary) => println!("  {half}: {summary}"),
                None => println!("  {half}: no row"),
            }
        }
    }
}
