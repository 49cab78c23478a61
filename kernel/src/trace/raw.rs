//! Reads what the plugin writes; the format is described at the head of `trace/trace.c`.

use super::TraceError;

/// The longest instruction of the architecture.
const CODE_MAX: usize = 15;

/// An access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Virtual address.
    pub at: u64,
    /// Size in bytes.
    pub size: u8,
    /// Whether it writes.
    pub store: bool,
}

/// An instruction that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its address.
    pub pc: u64,
    /// Its code.
    pub code: Vec<u8>,
    /// Accesses of the instruction, in order. An instruction that reads and writes a word is two accesses.
    pub accesses: Vec<Access>,
}

/// Instructions that the kernel executed between two markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Number, from 0.
    pub number: u32,
    /// Its instructions.
    pub steps: Vec<Step>,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// Reads the windows of a trace. A last window without an end, as a guest that died leaves it, is
/// dropped.
///
/// # Errors
/// [`TraceError::Damaged`] if the bytes are no trace.
pub fn read(bytes: &[u8]) -> Result<Vec<Window>, TraceError> {
    let mut reader = Reader { rest: bytes };
    let mut windows = Vec::new();
    let mut open: Option<Window> = None;
    while let Some(kind) = reader.byte() {
        let at = bytes.len() - reader.rest.len() - 1;
        let damaged = |what: &str| TraceError::Damaged { what: format!("byte {at}: {what}") };
        match (kind, &mut open) {
            (b'B', None) => {
                let Some(number) = reader.u32() else { break };
                open = Some(Window { number, steps: Vec::new() });
            }
            (b'E', Some(_)) => {
                if reader.u32().is_none() {
                    break;
                }
                windows.extend(open.take());
            }
            (b'I', Some(window)) => {
                let (Some(pc), Some(size)) = (reader.u64(), reader.byte()) else { break };
                if size == 0 || usize::from(size) > CODE_MAX {
                    return Err(damaged("an instruction of impossible length"));
                }
                let Some(code) = reader.take(size.into()) else { break };
                window.steps.push(Step { pc, code: code.to_owned(), accesses: Vec::new() });
            }
            (b'M', Some(window)) => {
                let (Some(at), Some(info)) = (reader.u64(), reader.byte()) else { break };
                let access = Access { at, size: 1 << (info & 7), store: info & 0x80 != 0 };
                // The processor's own, of an interrupt that came before the first instruction.
                if let Some(step) = window.steps.last_mut() {
                    step.accesses.push(access);
                }
            }
            (b'B' | b'E' | b'I' | b'M', _) => return Err(damaged("a record out of order")),
            _ => return Err(damaged("a record of unknown kind")),
        }
    }
    Ok(windows)
}

/// Writes windows in the plugin's format, for tests.
#[cfg(test)]
pub(crate) fn write(windows: &[Window]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for window in windows {
        bytes.push(b'B');
        bytes.extend(window.number.to_le_bytes());
        for step in &window.steps {
            bytes.push(b'I');
            bytes.extend(step.pc.to_le_bytes());
            bytes.push(step.code.len() as u8);
            bytes.extend(&step.code);
            for access in &step.accesses {
                bytes.push(b'M');
                bytes.extend(access.at.to_le_bytes());
                let store = if access.store { 0x80 } else { 0 };
                bytes.push(access.size.trailing_zeros() as u8 | store);
            }
        }
        bytes.push(b'E');
        bytes.extend(window.number.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows() -> Vec<Window> {
        let access = Access { at: 0xffff_8880_0000_1000, size: 8, store: true };
        let step = Step { pc: 0xffff_ffff_8100_0000, code: vec![0x50], accesses: vec![access] };
        let bare = Step { accesses: Vec::new(), ..step.clone() };
        vec![Window { number: 0, steps: vec![step, bare] }, Window { number: 1, steps: Vec::new() }]
    }

    #[test]
    fn windows_come_back_as_written() {
        assert_eq!(read(&write(&windows())).unwrap(), windows());
        assert_eq!(read(b"").unwrap(), []);
    }

    #[test]
    fn a_trace_cut_short_keeps_its_whole_windows() {
        let bytes = write(&windows());
        let first = write(&windows()[..1]).len();
        for length in 0..bytes.len() {
            let expected = usize::from(length >= first);
            assert_eq!(read(&bytes[..length]).unwrap().len(), expected, "{length}");
        }
    }

    #[test]
    fn an_access_before_the_first_instruction_is_nobodys() {
        let mut bytes = b"B\0\0\0\0M\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend(b"E\0\0\0\0");
        assert_eq!(read(&bytes).unwrap(), [Window { number: 0, steps: Vec::new() }]);
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for bytes in [&b"X"[..], b"E\0\0\0\0", b"B\0\0\0\0B\0\0\0\0"] {
            let error = read(bytes).unwrap_err();
            assert!(matches!(error, TraceError::Damaged { .. }), "{error}");
        }
        let mut long = b"B\0\0\0\0I\0\0\0\0\0\0\0\0".to_vec();
        long.push(16);
        assert!(read(&long).is_err());
    }
}
