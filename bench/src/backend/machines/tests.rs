//! Two guests that are played: what is interleaved, left out, and booted again.

use std::cell::RefCell;
use std::collections::BTreeMap;

use cellbench_kernel::vm::protocol::{RowInfo, VERSION};
use cellbench_record::{Kind, Round, Source};

use super::*;

/// Log of the played guests, in order: boots, and rows with their seeds.
type Diary = RefCell<Vec<String>>;

struct Played<'d> {
    label: &'static str,
    diary: &'d Diary,
}

fn series(cell: &str, workload: &str) -> Series {
    Series::new(cell, Kind::Timer, workload, 1, "compact", Source::Kernel)
}

impl Measures for Played<'_> {
    fn measure(&mut self, request: &Request) -> Result<Answer, VmError> {
        self.diary.borrow_mut().push(format!("{} {}", self.label, request.row));
        match (self.label, request.row) {
            ("7.1", 1) => Err(VmError::Gone { how: "panicked: BUG".to_owned(), by_itself: true }),
            ("7.1", 2) => Err(VmError::Gone { how: "was killed".to_owned(), by_itself: false }),
            (_, row) => {
                let mut round = Round::new(series("locked", "solo"), 0, 0.001);
                round.count("start", "ok", u64::from(row) + 1);
                Ok(Answer::Measured(Box::new(round), Vec::new()))
            }
        }
    }
}

fn boot(
    label: &'static str,
    rows: &'static [&'static str],
    diary: &'static Diary,
) -> Boot<'static> {
    Box::new(move || {
        diary.borrow_mut().push(format!("{label} boots"));
        let row = |name: &&str| RowInfo {
            name: (*name).to_owned(),
            series: series(if label == "6.18" { "locked" } else { "cmd-queue" }, "solo"),
            cpus: vec![0],
        };
        let hello = Hello {
            protocol: VERSION,
            release: label.to_owned(),
            evidence: Vec::new(),
            jit: Some(true),
            rows: rows.iter().map(row).collect(),
            skipped: Vec::new(),
        };
        Ok((Box::new(Played { label, diary }) as Box<dyn Measures>, hello))
    })
}

/// Returns a diary that lives as long as the test.
fn diary() -> &'static Diary {
    Box::leak(Box::default())
}

fn pair(diary: &'static Diary, topology: &'static Topology) -> (Machines<'static>, Plan<Spec>) {
    let boots = vec![
        boot("6.18", &["start", "cancel", "set"], diary),
        boot("7.1", &["start", "cancel", "set", "cancel_async"], diary),
    ];
    let cpus = [CpuId(0)];
    Machines::boot(boots, Engine::Instructions, topology, &cpus, &|_| true).unwrap()
}

fn topology() -> &'static Topology {
    Box::leak(Box::new(Topology::read().unwrap()))
}

#[test]
fn rows_of_both_kernels_are_compared_and_the_others_named() {
    let (machines, plan) = pair(diary(), topology());
    assert_eq!(machines.labels(), ["6.18", "7.1"]);
    let blocks: Vec<Vec<(&str, &str)>> = plan
        .blocks
        .iter()
        .map(|b| b.specs.iter().map(|s| (s.name.as_str(), s.series.cell.as_str())).collect())
        .collect();
    let both = |row| vec![(row, "6.18"), (row, "7.1")];
    assert_eq!(blocks, [both("start"), both("cancel"), both("set")]);
    assert_eq!(plan.skipped, ["cancel_async/solo: only 7.1 has it"]);
    // A report tells them from those of the host's own kernel.
    let machine = Some("QEMU counting instructions");
    assert!(plan.specs().all(|spec| spec.series.machine.as_deref() == machine));
}

#[test]
fn a_guest_that_ended_is_booted_again_and_its_row_left_out() {
    let diary = diary();
    let (mut machines, plan) = pair(diary, topology());
    let window = Duration::from_millis(1);
    let mut outcomes: BTreeMap<String, String> = BTreeMap::new();
    for spec in plan.specs() {
        let outcome = match machines.measure(&[spec], window, 7) {
            Ok(all) => all[0].round.ops["start"]["ok"].to_string(),
            Err(BackendError::LeftOut { what, reason, for_good }) => {
                format!("{what}: {reason}: {for_good}")
            }
            Err(error) => panic!("{error}"),
        };
        outcomes.insert(format!("{} {}", spec.series.cell, spec.name), outcome);
    }
    assert_eq!(outcomes["6.18 set"], "3");
    assert_eq!(outcomes["7.1 start"], "1");
    assert_eq!(outcomes["7.1 cancel"], "cancel (7.1): the guest panicked: BUG: true");
    // Whoever kills a machine from outside does not speak against the row.
    assert_eq!(outcomes["7.1 set"], "set (7.1): the guest was killed: false");
    let boots = |label: &str| {
        diary.borrow().iter().filter(|line| **line == format!("{label} boots")).count()
    };
    assert_eq!((boots("6.18"), boots("7.1")), (1, 2));
    let mut run = Run::new("0", 0);
    machines.describe(&mut run);
    assert!(run.notes.iter().any(|note| note == "cancel (7.1): the guest panicked: BUG"));
}

#[test]
fn a_kernel_that_never_stays_up_ends_the_run() {
    let (mut machines, plan) = pair(diary(), topology());
    let spec = plan.specs().find(|s| s.side == 1 && s.name == "cancel").unwrap();
    let failed = |machines: &mut Machines<'_>| {
        matches!(
            machines.measure(&[spec], Duration::from_millis(1), 7),
            Err(BackendError::Failed(_))
        )
    };
    let ended = (0..=REBOOTS).position(|_| failed(&mut machines));
    assert_eq!(ended, Some(REBOOTS as usize));
}

#[test]
fn two_boots_of_one_kernel_have_two_names() {
    let diary = diary();
    let boots = vec![boot("7.1", &["start"], diary), boot("7.1", &["start"], diary)];
    let cpus = [CpuId(0)];
    let booted = Machines::boot(boots, Engine::Instructions, topology(), &cpus, &|_| true);
    assert_eq!(booted.unwrap().0.labels(), ["7.1", "7.1+twin"]);
}

#[test]
fn nothing_in_common_is_said() {
    let diary = diary();
    let boots = vec![boot("6.18", &["start"], diary), boot("7.1", &["cancel"], diary)];
    let cpus = [CpuId(0)];
    let booted = Machines::boot(boots, Engine::Instructions, topology(), &cpus, &|_| true);
    let error = booted.err().unwrap().to_string();
    assert!(error.contains("nothing to measure"), "{error}");
}
