//! The table of docs/locks.md, which says of every lock what its tests see.

/// A row.
pub(crate) struct Row {
    /// The lock's name.
    pub(crate) lock: String,
    /// Bytes of a lock with what is behind its pointers.
    pub(crate) space: String,
    /// Cache lines that move for a section.
    pub(crate) moved: String,
    /// Sections of others that a waiter sees at most.
    pub(crate) passed: String,
}

/// Reads the rows.
///
/// # Panics
/// If there is no such table.
pub(crate) fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/locks.md");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let is_header = |line: &&str| line.starts_with("| lock | space, bytes | lines moved | passed");
    let rows = text.lines().skip_while(|line| !is_header(line)).skip(2);
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        let mut next = || cells.next().unwrap_or_else(|| panic!("{path}: too short: {line}"));
        Row { lock: next().replace('`', ""), space: next(), moved: next(), passed: next() }
    };
    let rows: Vec<Row> = rows.take_while(|line| line.starts_with('|')).map(row).collect();
    assert!(!rows.is_empty(), "{path}: no table of locks");
    rows
}
