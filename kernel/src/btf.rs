//! Reads the kernel's own description of its types (BTF), as far as telling generations apart needs.
//!
//! Kept independent of libbpf, so that the generation of a kernel can be named by a build without the
//! measuring part, and from a file of another machine. The format is documented in the kernel tree
//! (Documentation/bpf/btf.rst): a header, a sequence of variable-length type records numbered from
//! 1, and a table of NUL-terminated names.

/// Fault in a type description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Too short, or not BTF at all.
    #[error("no BTF header")]
    NoHeader,
    /// A section reaches beyond the end.
    #[error("truncated")]
    Truncated,
    /// A record of a kind newer than this reader. Its length is unknown, so that reading must stop.
    #[error("type {id} is of unknown kind {kind}")]
    UnknownKind {
        /// Number of the type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
}

mod fields;

pub use fields::Field;

const MAGIC: u16 = 0xEB9F;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;

/// A member of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Name of its type, behind typedefs and qualifiers; empty for pointers, arrays and anonymous
    /// types.
    pub type_name: String,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    kind: u32,
    name: u32,
    /// Size in bytes, or the number of the type referred to.
    size_or_type: u32,
    /// Entries that follow the record.
    count: u32,
    /// Where they start in the type section.
    entries: usize,
}

/// A parsed type description.
#[derive(Clone, Debug)]
pub struct Btf {
    types: Vec<u8>,
    names: Vec<u8>,
    /// Record of type `n` at `n - 1`.
    records: Vec<Record>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Returns bytes that follow the 12 bytes every record starts with.
fn trailing_bytes(kind: u32, count: u32) -> Option<usize> {
    let count = count as usize;
    Some(match kind {
        1 | 14 | 17 => 4,
        2 | 7..=12 | 16 | 18 => 0,
        3 => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
        6 | KIND_FUNC_PROTO => 8 * count,
        _ => return None,
    })
}

impl Btf {
    /// Parses the contents of `/sys/kernel/btf/vmlinux` or of a `.BTF` section of this host's byte
    /// order.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        let magic = bytes.get(..2).ok_or(BtfError::NoHeader)?;
        if magic != MAGIC.to_ne_bytes() {
            return Err(BtfError::NoHeader);
        }
        let field = |at| u32_at(bytes, at).map(|v| v as usize).ok_or(BtfError::NoHeader);
        let header = field(4)?;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset).ok_or(BtfError::Truncated)?;
            let end = start.checked_add(length).ok_or(BtfError::Truncated)?;
            bytes.get(start..end).ok_or(BtfError::Truncated)
        };
        let types = section(field(8)?, field(12)?)?;
        let names = section(field(16)?, field(20)?)?;

        let mut records = Vec::new();
        let mut at = 0;
        while at < types.len() {
            let word = |n: usize| u32_at(types, at + 4 * n).ok_or(BtfError::Truncated);
            let info = word(1)?;
            let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
            let id = records.len() as u32 + 1;
            let trailing = trailing_bytes(kind, count).ok_or(BtfError::UnknownKind { id, kind })?;
            let entries = at + 12;
            if types.len() < entries + trailing {
                return Err(BtfError::Truncated);
            }
            records.push(Record { kind, name: word(0)?, size_or_type: word(2)?, count, entries });
            at = entries + trailing;
        }
        Ok(Self { types: types.to_owned(), names: names.to_owned(), records })
    }

    fn name_bytes(&self, offset: u32) -> &[u8] {
        let rest = self.names.get(offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn name(&self, offset: u32) -> String {
        String::from_utf8_lossy(self.name_bytes(offset)).into_owned()
    }

    fn record(&self, id: u32) -> Option<&Record> {
        self.records.get((id as usize).checked_sub(1)?)
    }

    fn find(&self, kind: u32, name: &str) -> Option<&Record> {
        self.records.iter().find(|r| r.kind == kind && self.name_bytes(r.name) == name.as_bytes())
    }

    /// Returns the name of type `id` once typedefs and qualifiers (const, volatile, restrict, type
    /// tag) are removed.
    fn bare_type_name(&self, mut id: u32) -> String {
        // Longer chains do not occur; the bound keeps a damaged file from looping.
        for _ in 0..32 {
            match self.record(id) {
                Some(r) if matches!(r.kind, KIND_TYPEDEF | 9..=11 | 18) => id = r.size_or_type,
                Some(r) if r.kind == 2 => return String::new(),
                Some(r) => return self.name(r.name),
                None => return String::new(),
            }
        }
        String::new()
    }

    /// Returns the members of the structure `name`, those of anonymous unions and structures included in
    /// place. None if the kernel has no such structure.
    #[must_use]
    pub fn members(&self, name: &str) -> Option<Vec<Member>> {
        let mut members = Vec::new();
        self.collect_members(self.find(KIND_STRUCT, name)?, &mut members, 8);
        Some(members)
    }

    fn collect_members(&self, of: &Record, into: &mut Vec<Member>, depth: u32) {
        for n in 0..of.count as usize {
            let at = of.entries + 12 * n;
            let (Some(name), Some(id)) = (u32_at(&self.types, at), u32_at(&self.types, at + 4))
            else {
                return;
            };
            let name = self.name(name);
            match self.record(id) {
                Some(inner)
                    if name.is_empty()
                        && depth > 0
                        && matches!(inner.kind, KIND_STRUCT | KIND_UNION) =>
                {
                    self.collect_members(inner, into, depth - 1);
                }
                _ => into.push(Member { name, type_name: self.bare_type_name(id) }),
            }
        }
    }

    /// Returns the parameter names of the function `name`; none if the kernel has no such function.
    #[must_use]
    pub fn parameters(&self, name: &str) -> Option<Vec<String>> {
        let prototype = self.record(self.find(KIND_FUNC, name)?.size_or_type)?;
        if prototype.kind != KIND_FUNC_PROTO {
            return None;
        }
        (0..prototype.count as usize)
            .map(|n| u32_at(&self.types, prototype.entries + 8 * n).map(|at| self.name(at)))
            .collect()
    }

    /// Returns whether the kernel has a function `name`.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.find(KIND_FUNC, name).is_some()
    }
}

/// Builds small type descriptions for tests.
#[cfg(test)]
pub(crate) mod synthetic {
    use super::{KIND_FUNC, KIND_FUNC_PROTO, KIND_STRUCT, KIND_TYPEDEF, KIND_UNION, MAGIC};

    /// A type description under construction.
    pub(crate) struct Builder {
        types: Vec<u8>,
        names: Vec<u8>,
        next: u32,
    }

    impl Builder {
        /// Returns information with one type: `int`, number 1.
        pub(crate) fn new() -> Self {
            let mut builder = Self { types: Vec::new(), names: vec![0], next: 1 };
            builder.record("int", 1, 0, 4);
            builder.words(&[32]);
            builder
        }

        fn words(&mut self, words: &[u32]) {
            for word in words {
                self.types.extend(word.to_ne_bytes());
            }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.names.len() as u32;
            self.names.extend(name.as_bytes());
            self.names.push(0);
            at
        }

        fn record(&mut self, name: &str, kind: u32, count: u32, size_or_type: u32) -> u32 {
            let name = self.name(name);
            self.words(&[name, kind << 24 | count, size_or_type]);
            self.next += 1;
            self.next - 1
        }

        fn composite(&mut self, kind: u32, name: &str, members: &[(&str, u32)]) -> u32 {
            let id = self.record(name, kind, members.len() as u32, 8 * members.len() as u32);
            for (n, (member, of)) in members.iter().enumerate() {
                let member = self.name(member);
                self.words(&[member, *of, 64 * n as u32]);
            }
            id
        }

        pub(crate) fn structure(&mut self, name: &str, members: &[(&str, u32)]) -> u32 {
            self.composite(KIND_STRUCT, name, members)
        }

        pub(crate) fn union(&mut self, name: &str, members: &[(&str, u32)]) -> u32 {
            self.composite(KIND_UNION, name, members)
        }

        pub(crate) fn typedef(&mut self, name: &str, of: u32) -> u32 {
            self.record(name, KIND_TYPEDEF, 0, of)
        }

        pub(crate) fn function(&mut self, name: &str, parameters: &[&str]) -> u32 {
            let prototype = self.record("", KIND_FUNC_PROTO, parameters.len() as u32, 1);
            for parameter in parameters {
                let parameter = self.name(parameter);
                self.words(&[parameter, 1]);
            }
            self.record(name, KIND_FUNC, 0, prototype)
        }

        pub(crate) fn unknown_kind(&mut self) {
            self.record("new", 31, 0, 0);
        }

        pub(crate) fn bytes(&self) -> Vec<u8> {
            let mut bytes = Vec::new();
            bytes.extend(MAGIC.to_ne_bytes());
            bytes.extend([1, 0]);
            let (types, names) = (self.types.len() as u32, self.names.len() as u32);
            for word in [24, 0, types, types, names] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(&self.types);
            bytes.extend(&self.names);
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::synthetic::Builder;
    use super::*;

    fn names(btf: &Btf, of: &str) -> Vec<String> {
        btf.members(of).unwrap().into_iter().map(|m| m.name).collect()
    }

    #[test]
    fn members_of_anonymous_unions_are_found_in_place() {
        let mut b = Builder::new();
        let union = b.union("", &[("cb", 1), ("timer", 1)]);
        b.structure("bpf_async_kern", &[("", union), ("lock", 1)]);
        let btf = Btf::parse(&b.bytes()).unwrap();
        assert_eq!(names(&btf, "bpf_async_kern"), ["cb", "timer", "lock"]);
        assert_eq!(btf.members("bpf_async_cb"), None);
    }

    #[test]
    fn type_names_look_through_typedefs() {
        let mut b = Builder::new();
        let lock = b.structure("rqspinlock", &[("val", 1)]);
        let alias = b.typedef("rqspinlock_t", lock);
        b.structure("s", &[("lock", alias)]);
        let btf = Btf::parse(&b.bytes()).unwrap();
        assert_eq!(btf.members("s").unwrap()[0].type_name, "rqspinlock");
    }

    #[test]
    fn functions_are_found_with_their_parameters() {
        let mut b = Builder::new();
        b.function("bpf_wq_start", &["wq", "flags"]);
        let btf = Btf::parse(&b.bytes()).unwrap();
        assert!(btf.has_function("bpf_wq_start"));
        assert!(!btf.has_function("bpf_wq"));
        assert_eq!(btf.parameters("bpf_wq_start").unwrap(), ["wq", "flags"]);
        assert_eq!(btf.parameters("bpf_wq_init"), None);
    }

    #[test]
    fn damaged_descriptions_are_told_apart() {
        assert_eq!(Btf::parse(b"").unwrap_err(), BtfError::NoHeader);
        assert_eq!(Btf::parse(b"\x7fELF____________________").unwrap_err(), BtfError::NoHeader);
        let mut b = Builder::new();
        b.structure("s", &[("a", 1)]);
        let bytes = b.bytes();
        for length in 24..bytes.len() {
            assert_eq!(Btf::parse(&bytes[..length]).unwrap_err(), BtfError::Truncated, "{length}");
        }
        b.unknown_kind();
        let error = Btf::parse(&b.bytes()).unwrap_err();
        assert_eq!(error, BtfError::UnknownKind { id: 3, kind: 31 });
    }

    #[test]
    fn a_cycle_of_typedefs_ends() {
        let mut b = Builder::new();
        let own_number = 2;
        let alias = b.typedef("a", own_number);
        assert_eq!(alias, own_number);
        b.structure("s", &[("m", alias)]);
        let btf = Btf::parse(&b.bytes()).unwrap();
        assert_eq!(btf.members("s").unwrap()[0].type_name, "");
    }
}
