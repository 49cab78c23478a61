//! Compares the simulator with measurements by others, which `ground-truth/` holds.
//!
//! `cargo run --release -p cellbench-sim --example ground_truth` prints a table for each data set; with
//! an argument `NAME=VALUE` a figure of the machines is replaced first, to see what depends on it: the
//! ablations. `cellbench sim --validate --against DIR` does the same over measured hosts too, with
//! intervals.

use std::path::Path;

use cellbench_sim::MachineModel;
use cellbench_sim::truth::{self, Agreement, Half, Row};

fn main() {
    let changes: Vec<String> = std::env::args().skip(1).collect();
    let adjust = |machine: &MachineModel| {
        let mut text: toml::Table = machine.to_toml().parse().expect("a machine is TOML");
        for change in &changes {
            let (name, value) = change.split_once('=').expect("NAME=VALUE");
            let (table, field) = name.split_once('.').expect("table.field");
            let value: toml::Value = toml::from_str::<toml::Table>(&format!("x = {value}"))
                .expect("a TOML value")["x"]
                .clone();
            let table = text[table].as_table_mut().expect("a table of the machine");
            table.insert(field.to_owned(), value);
        }
        MachineModel::parse("changed", &text.to_string()).expect("a possible machine")
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ground-truth");
    let (sets, skipped) = truth::read(&folder).expect("measurements");
    for mut set in sets {
        set.machine = adjust(&set.machine);
        let rows: Vec<Row> =
            set.questions.iter().map(|question| set.row(question, 0).expect("it runs")).collect();
        println!("{}: {}", set.name, set.title);
        rows.iter().for_each(|row| println!("  {row}"));
        for half in [Half::Tuned, Half::HeldOut] {
            let of_half: Vec<&Row> = rows.iter().filter(|row| row.half == half).collect();
            match Agreement::of(&of_half) {
                Some(agreement) => println!("  {half}: {agreement}"),
                None => println!("  {half}: no row"),
            }
        }
    }
    skipped.iter().for_each(|line| println!("not predicted: {line}"));
}
