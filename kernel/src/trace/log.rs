//! Reads what the guest says beside the plugin's trace; the lines are listed in `guest.rs`.

use std::collections::BTreeMap;

use super::TraceError;
use super::symbols::Symbols;
use crate::btf::Field;

/// A structure of the traced kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Size in bytes.
    pub size: u32,
    /// Its fields by offset.
    pub fields: Vec<Field>,
}

impl Layout {
    /// Returns the name of the field at `offset`, or none where the structure has padding there.
    #[must_use]
    pub fn field_at(&self, offset: u32) -> Option<&str> {
        self.fields
            .iter()
            .rfind(|f| f.offset <= offset && offset < f.offset.saturating_add(f.size.max(1)))
            .map(|f| f.name.as_str())
    }

    /// Returns the offset of the field `name`.
    #[must_use]
    pub fn offset_of(&self, name: &str) -> Option<u32> {
        self.fields.iter().find(|f| f.name == name).map(|f| f.offset)
    }
}

/// A window, as the guest tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Which call of the row it is, from 0.
    pub call: u8,
    /// Addresses of objects by name.
    pub objects: BTreeMap<String, u64>,
    /// Words of the block by index.
    pub words: BTreeMap<u32, u64>,
    /// Outcomes of the call by operation.
    pub outcomes: BTreeMap<String, String>,
}

/// A row, as the guest tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldRow {
    /// Name of the row.
    pub name: String,
    /// Context by name.
    pub context: String,
    /// Generation or lock.
    pub cell: String,
    /// Why it was not traced, or not to its end.
    pub skipped: Option<String>,
    /// Its windows by number.
    pub windows: BTreeMap<u32, Told>,
    /// Whether the guest came to its end.
    pub ended: bool,
}

/// Everything that a guest told.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Release of the kernel.
    pub release: String,
    /// Error that kept the guest from tracing at all.
    pub error: Option<String>,
    /// Its rows in order.
    pub rows: Vec<ToldRow>,
    /// Structures by name.
    pub layouts: BTreeMap<String, Layout>,
    /// Symbols of the kernel.
    pub symbols: Symbols,
    /// Whether the guest came to its end.
    pub done: bool,
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}

impl Log {
    /// Reads the text of a guest, which may end anywhere.
    ///
    /// # Errors
    /// [`TraceError::Damaged`] at a whole line that is not one of the protocol.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut log = Self::default();
        let mut symbols = Vec::new();
        let mut layout = String::new();
        // A last line without its end may be cut.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (number, line) in whole.lines().enumerate() {
            let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
            let words: Vec<&str> = rest.split(' ').collect();
            log.line(key, rest, &words, &mut symbols, &mut layout).ok_or_else(|| {
                TraceError::Damaged { what: format!("line {} of the guest: {line}", number + 1) }
            })?;
        }
        log.symbols = Symbols::new(symbols);
        Ok(log)
    }

    fn line(
        &mut self,
        key: &str,
        rest: &str,
        words: &[&str],
        symbols: &mut Vec<(u64, String)>,
        layout: &mut String,
    ) -> Option<()> {
        match (key, words) {
            ("guest", ["1", release]) => self.release = (*release).to_owned(),
            ("error", _) => self.error = Some(rest.to_owned()),
            ("cell", [_, _]) => {}
            ("row", [name, context, cell]) => self.rows.push(ToldRow {
                name: (*name).to_owned(),
                context: (*context).to_owned(),
                cell: (*cell).to_owned(),
                ..ToldRow::default()
            }),
            ("skip", _) => self.rows.last_mut()?.skipped = Some(rest.to_owned()),
            ("end", _) => self.rows.last_mut()?.ended = true,
            ("window", [number, call]) => {
                self.window(number)?.call = call.parse().ok()?;
            }
            ("object", [number, name, at]) => {
                let at = hex(at)?;
                self.window(number)?.objects.insert((*name).to_owned(), at);
            }
            ("word", [number, index, word]) => {
                let (index, word) = (index.parse().ok()?, hex(word)?);
                self.window(number)?.words.insert(index, word);
            }
            ("outcome", [number, outcome]) => {
                let (op, outcome) = outcome.split_once('=')?;
                self.window(number)?.outcomes.insert(op.to_owned(), outcome.to_owned());
            }
            ("layout", [name, size]) => {
                *layout = (*name).to_owned();
                let size = size.parse().ok()?;
                self.layouts.insert(layout.clone(), Layout { size, fields: Vec::new() });
            }
            ("field", [offset, size, name]) => {
                let (offset, size) = (offset.parse().ok()?, size.parse().ok()?);
                let field = Field { offset, size, name: (*name).to_owned() };
                self.layouts.get_mut(layout)?.fields.push(field);
            }
            ("symbol", [distance, name]) => {
                let before = symbols.last().map_or(0, |(at, _)| *at);
                symbols.push((before.wrapping_add(hex(distance)?), (*name).to_owned()));
            }
            ("done", _) => self.done = true,
            _ => return None,
        }
        Some(())
    }

    fn window(&mut self, number: &str) -> Option<&mut Told> {
        let number = number.parse().ok()?;
        Some(self.rows.last_mut()?.windows.entry(number).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "guest 1 7.0.13\ncell timer cmd-queue\nrow timer-start task cmd-queue\n\
        object 0 value ffff888000001000\nword 0 1 ffffc90000010000\nwindow 0 0\n\
        outcome 0 start=ok\nend\nrow timer-cancel task cmd-queue\nskip no such thing\nend\n\
        layout bpf_async_cb 64\nfield 0 8 map\nfield 8 8 prog\nsymbol 0 fixed_percpu_data\n\
        symbol ffffffff81000000 _stext\nsymbol 10 _text\ndone\n";

    #[test]
    fn everything_told_is_kept() {
        let log = Log::parse(TEXT).unwrap();
        assert_eq!((log.release.as_str(), log.done), ("7.0.13", true));
        let told = &log.rows[0].windows[&0];
        assert_eq!(told.objects["value"], 0xffff_8880_0000_1000);
        assert_eq!(told.words[&1], 0xffff_c900_0001_0000);
        assert_eq!(told.outcomes["start"], "ok");
        assert_eq!(log.rows[1].skipped.as_deref(), Some("no such thing"));
        let layout = &log.layouts["bpf_async_cb"];
        assert_eq!(layout.field_at(12), Some("prog"));
        assert_eq!(layout.field_at(16), None);
        assert_eq!(layout.offset_of("prog"), Some(8));
        assert_eq!(log.symbols.name(0xffff_ffff_8100_0004), Some(("_stext", 4)));
        assert_eq!(log.symbols.name(0xffff_ffff_8100_0014), Some(("_text", 4)));
    }

    #[test]
    fn a_guest_that_died_leaves_what_it_said() {
        let log = Log::parse("guest 1 7.0\nrow a task b\nwind").unwrap();
        assert!(!log.done && !log.rows[0].ended);
        let error = Log::parse("guest 1 7.0\nnonsense\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
