//! Where the fields of a structure lie, nested ones included.

use super::{Btf, KIND_STRUCT, KIND_TYPEDEF, KIND_UNION, Record, u32_at};

const KIND_ARRAY: u32 = 3;
const KIND_POINTER: u32 = 2;
/// Deeper chains of types do not occur; the bound keeps a damaged file from looping.
const DEPTH: u32 = 16;

/// A field that is not itself a structure, or one at the depth where flattening stopped.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Field {
    /// Bytes from the start of the structure.
    pub offset: u32,
    /// Size in bytes; that of a bit field is its storage, rounded up to bytes.
    pub size: u32,
    /// Name, with the names of the structures around it: `cb.refcnt`.
    pub name: String,
}

impl Btf {
    /// Returns the number of the type behind typedefs and qualifiers.
    fn bare(&self, mut id: u32) -> Option<&Record> {
        for _ in 0..DEPTH {
            let record = self.record(id)?;
            match record.kind {
                KIND_TYPEDEF | 9..=11 | 18 => id = record.size_or_type,
                _ => return Some(record),
            }
        }
        None
    }

    fn size_of(&self, id: u32, depth: u32) -> u32 {
        let Some(record) = self.bare(id) else { return 0 };
        match record.kind {
            KIND_POINTER => 8,
            KIND_ARRAY if depth > 0 => {
                let word = |n: usize| u32_at(&self.types, record.entries + 4 * n).unwrap_or(0);
                self.size_of(word(0), depth - 1).saturating_mul(word(2))
            }
            KIND_ARRAY => 0,
            _ => record.size_or_type,
        }
    }

    /// Returns the size of the structure `name` in bytes; none if the kernel has no such structure.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u32> {
        self.find(KIND_STRUCT, name).map(|record| record.size_or_type)
    }

    /// Returns the fields of the structure `name` by offset, nested structures flattened to `depth` levels;
    /// none if the kernel has no such structure. Of a union only the widest member is flattened: the others
    /// name the same bytes.
    #[must_use]
    pub fn fields(&self, name: &str, depth: u32) -> Option<Vec<Field>> {
        let record = self.find(KIND_STRUCT, name)?;
        let mut fields = Vec::new();
        self.flatten(record, 0, "", depth, &mut fields);
        fields.sort_by_key(|field| field.offset);
        Some(fields)
    }

    fn flatten(&self, of: &Record, base: u32, prefix: &str, depth: u32, into: &mut Vec<Field>) {
        let has_bit_fields = u32_at(&self.types, of.entries - 8).unwrap_or(0) >> 31 == 1;
        let member = |n: usize| -> Option<(u32, u32, u32)> {
            let word = |k: usize| u32_at(&self.types, of.entries + 12 * n + 4 * k);
            Some((word(0)?, word(1)?, word(2)?))
        };
        let mut members: Vec<_> = (0..of.count as usize).filter_map(member).collect();
        if of.kind == KIND_UNION {
            let widest = members.iter().map(|(_, id, _)| self.size_of(*id, DEPTH)).max();
            members.retain(|(_, id, _)| Some(self.size_of(*id, DEPTH)) == widest);
            members.truncate(1);
        }
        for (name, id, place) in members {
            let (bits, bit_size) =
                if has_bit_fields { (place & 0x00ff_ffff, place >> 24) } else { (place, 0) };
            let offset = base + bits / 8;
            let own = self.name(name);
            let full = match (prefix.is_empty(), own.is_empty()) {
                (_, true) => prefix.to_owned(),
                (true, false) => own,
                (false, false) => format!("{prefix}.{own}"),
            };
            match self.bare(id) {
                // An anonymous one is no level of its own to a reader.
                Some(inner)
                    if matches!(inner.kind, KIND_STRUCT | KIND_UNION)
                        && inner.count > 0
                        && depth > 0 =>
                {
                    self.flatten(inner, offset, &full, depth - 1, into);
                }
                _ => {
                    let size =
                        if bit_size > 0 { bit_size.div_ceil(8) } else { self.size_of(id, DEPTH) };
                    into.push(Field { offset, size, name: full });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::btf::Btf;
    use crate::btf::synthetic::Builder;

    #[test]
    fn nested_fields_have_their_place_and_full_name() {
        let mut b = Builder::new();
        let inner = b.structure("bpf_async_cb", &[("map", 1), ("prog", 1)]);
        let either = b.union("", &[("timer", 1), ("work", inner)]);
        b.structure("bpf_hrtimer", &[("cb", inner), ("", either)]);
        let btf = Btf::parse(&b.bytes()).unwrap();
        let found: Vec<_> = btf
            .fields("bpf_hrtimer", 4)
            .unwrap()
            .into_iter()
            .map(|field| (field.offset, field.size, field.name))
            .collect();
        let field = |offset, name: &str| (offset, 4, name.to_owned());
        // The builder puts every member 8 bytes behind the one before, in unions too.
        assert_eq!(
            found,
            [
                field(0, "cb.map"),
                field(8, "cb.prog"),
                field(16, "work.map"),
                field(24, "work.prog")
            ]
        );
        let shallow = btf.fields("bpf_hrtimer", 0).unwrap();
        assert_eq!(shallow[0].name, "cb");
        assert_eq!(btf.fields("bpf_work", 1), None);
        assert_eq!(btf.size("bpf_async_cb"), Some(16));
    }
}
