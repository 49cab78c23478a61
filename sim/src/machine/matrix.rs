//! Matrices of latencies between hardware threads, as files of comma-separated values.

use super::MachineError;

/// Reads a matrix, of which the lower triangle is enough, and divides it by a share.
///
/// # Errors
/// [`MachineError::Field`] if a figure cannot be read or is missing on both sides.
pub(crate) fn parse(file: &str, text: &str, share: f64) -> Result<Vec<Vec<f64>>, MachineError> {
    let refuse = |problem: String, advice: &str| MachineError::Field {
        file: file.to_owned(),
        field: "transfer.matrix_file".to_owned(),
        problem,
        advice: advice.to_owned(),
    };
    let mut rows: Vec<Vec<Option<f64>>> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let row = rows.len();
        let figure = |(column, cell): (usize, &str)| match cell.trim() {
            "" => Ok(None),
            cell => cell.parse().map(|ns: f64| Some(ns / share)).map_err(|_| {
                let problem =
                    format!("names a file whose row {row} has `{cell}` in column {column}");
                refuse(problem, "give nanoseconds, or nothing")
            }),
        };
        rows.push(line.split(',').enumerate().map(figure).collect::<Result<_, _>>()?);
    }
    let at = |from: usize, to: usize| rows.get(from)?.get(to).copied().flatten();
    let threads = rows.len();
    let entry = |from: usize, to: usize| match at(from, to).or_else(|| at(to, from)) {
        _ if from == to => Ok(0.0),
        Some(ns) => Ok(ns),
        None => {
            let problem = format!("names a file without a figure between {from} and {to}");
            Err(refuse(problem, "give every pair of hardware threads once"))
        }
    };
    (0..threads).map(|from| (0..threads).map(|to| entry(from, to)).collect()).collect()
}
