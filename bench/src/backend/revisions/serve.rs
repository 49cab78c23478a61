//! The serving end: measures rows on this host's cores as it is told to.

use std::io::{BufRead, Write};
use std::time::Duration;

use cellbench_record::{Run, pack_histogram};

use super::protocol::{Answer, Ready, Request, Row, Rows, VERSION, read_line, write_line};
use cellbench_measure::backend::cores::Cores;
use cellbench_measure::backend::{Backend, BackendError, Measured};
use cellbench_measure::session::plan::{Plan, Spec};

/// Serves the rows of `plan` until `requests` end.
///
/// # Errors
/// Those of reading and writing; what cannot be measured is an answer.
pub fn serve(
    plan: &Plan,
    cores: &mut Cores<'_>,
    requests: &mut impl BufRead,
    answers: &mut impl Write,
) -> std::io::Result<()> {
    let specs: Vec<&Spec> = plan.specs().collect();
    let row = |spec: &&Spec| Row {
        series: spec.series.clone(),
        cpus: spec.cpus.iter().map(|cpu| cpu.0).collect(),
    };
    let rows = specs.iter().map(row).collect();
    let rows = Rows { protocol: VERSION, rows, skipped: plan.skipped.clone() };
    write_line(answers, &rows)?;
    while let Some(request) = read_line(requests)? {
        let answer = match request {
            Request::Prepare { time_budget_s } => prepare(cores, time_budget_s),
            Request::Calibrate => match cores.measure_lengths() {
                Ok(lengths) => Answer::Calibrated(lengths),
                Err(error) => failed(&error),
            },
            Request::Adopt(lengths) => {
                cores.set_lengths(lengths);
                Answer::Adopted
            }
            Request::Measure { row, window_ns, seed } => match specs.get(row as usize) {
                Some(spec) => measure(cores, spec, Duration::from_nanos(window_ns), seed),
                None => Answer::Failed(format!("there is no row {row}")),
            },
        };
        write_line(answers, &answer)?;
    }
    Ok(())
}

fn prepare(cores: &mut Cores<'_>, time_budget_s: Option<f64>) -> Answer {
    let budget = time_budget_s.and_then(|s| Duration::try_from_secs_f64(s).ok());
    if let Err(error) = cores.prepare(budget) {
        return failed(&error);
    }
    let mut run = Run::new(env!("CARGO_PKG_VERSION"), 0);
    cores.describe(&mut run);
    Answer::Ready(Box::new(Ready {
        host: run.host,
        findings: run.findings,
        calibration: run.calibration,
        irq_save_cost_ns: run.settings.irq_save_cost_ns,
        charges: run.settings.charges.unwrap_or_default(),
    }))
}

fn measure(cores: &mut Cores<'_>, spec: &Spec, window: Duration, seed: u64) -> Answer {
    match cores.measure(&[spec], window, seed).as_deref() {
        Ok([Measured { round, latencies, .. }]) => {
            let packed = latencies.iter().map(|(op, histogram)| {
                pack_histogram(histogram).map(|packed| (op.clone(), packed))
            });
            match packed.collect() {
                Ok(packed) => Answer::Measured(Box::new(round.clone()), packed),
                Err(what) => Answer::Failed(what),
            }
        }
        Ok(_) => Answer::Failed("not one round of one row".to_owned()),
        Err(error) => failed(error),
    }
}

fn failed(error: &BackendError) -> Answer {
    Answer::Failed(error.to_string())
}
