//! A small map from names to values.
//!
//! A table of 100,000 rows has a million maps of one to ten names each, for which a tree reserves
//! ten times the room they need.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names in rising order, each with its value; in JSON an object.
#[derive(Clone, PartialEq, Eq)]
pub struct Named<V> {
    items: Vec<(String, V)>,
}

impl<V> Named<V> {
    /// Returns a map without names.
    #[must_use]
    pub const fn new() -> Self {
        Self { items: Vec::new() }
    }

    /// Returns the number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns the value of `name`.
    #[must_use]
    pub fn get(&self, name: impl AsRef<str>) -> Option<&V> {
        self.place(name.as_ref()).ok().map(|place| &self.items[place].1)
    }

    /// Returns whether `name` has a value.
    #[must_use]
    pub fn contains_key(&self, name: impl AsRef<str>) -> bool {
        self.place(name.as_ref()).is_ok()
    }

    /// Sets the value of `name` and returns the one it had.
    pub fn insert(&mut self, name: String, value: V) -> Option<V> {
        match self.place(&name) {
            Ok(place) => Some(std::mem::replace(&mut self.items[place].1, value)),
            Err(place) => {
                self.items.reserve_exact(1);
                self.items.insert(place, (name, value));
                None
            }
        }
    }

    /// Returns the value of `name`, the default one if it had none.
    pub fn or_default(&mut self, name: &str) -> &mut V
    where
        V: Default,
    {
        let place = match self.place(name) {
            Ok(place) => place,
            Err(place) => {
                self.items.reserve_exact(1);
                self.items.insert(place, (name.to_owned(), V::default()));
                place
            }
        };
        &mut self.items[place].1
    }

    /// Returns names and values in rising order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&String, &V)> {
        self.items.iter().map(|(name, value)| (name, value))
    }

    /// Returns names in rising order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &String> {
        self.items.iter().map(|(name, _)| name)
    }

    /// Returns values in rising order of their names.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.items.iter().map(|(_, value)| value)
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.items.binary_search_by(|(other, _)| other.as_str().cmp(name))
    }
}

impl<V> Default for Named<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for Named<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<V> Index<&str> for Named<V> {
    type Output = V;

    /// Returns the value of a name.
    ///
    /// # Panics
    /// If `name` has no value.
    fn index(&self, name: &str) -> &V {
        self.get(name).unwrap_or_else(|| panic!("no value is named {name:?}"))
    }
}

impl<V> FromIterator<(String, V)> for Named<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(items: I) -> Self {
        let mut named = Self::new();
        for (name, value) in items {
            named.insert(name, value);
        }
        named
    }
}

impl<'a, V> IntoIterator for &'a Named<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = std::iter::Map<
        std::slice::Iter<'a, (String, V)>,
        fn(&'a (String, V)) -> (&'a String, &'a V),
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter().map(|(name, value)| (name, value))
    }
}

impl<V: Serialize> Serialize for Named<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Named<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Items<V> {
            type Value = Named<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<V>, A::Error> {
                let mut named = Named::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    named.insert(name, value);
                }
                Ok(named)
            }
        }

        deserializer.deserialize_map(Items(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::Named;

    #[test]
    fn names_are_ordered_and_unique_and_survive_json() {
        let mut named: Named<u32> =
            [("b".to_owned(), 2), ("a".to_owned(), 1)].into_iter().collect();
        assert_eq!(named.insert("b".into(), 3), Some(2));
        *named.or_default("c") += 4;
        assert_eq!(named.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((named["b"], named.get("d"), named.len()), (3, None, 3));
        let text = serde_json::to_string(&named).unwrap();
        assert_eq!(text, r#"{"a":1,"b":3,"c":4}"#);
        assert_eq!(serde_json::from_str::<Named<u32>>(&text).unwrap(), named);
    }
}
