//! The walk over one record, whatever its format: a serde visitor that follows the trie of needed keys and writes numbers straight into
//! the caller's row. All other values are skipped.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Refusal;
use super::scalar::{BYTES, EXTENSION, Scalar, ScalarSeed};
use super::trie::{Roles, Trie, Want};

pub(super) fn wrong_type(field: &str, expected: &'static str, found: &'static str) -> Refusal {
    Refusal::WrongType { field: field.to_owned(), expected, found }
}

pub(super) const A_NUMBER: &str = "a number or boolean";

/// The fields that are looked at after the walk.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found<'de> {
    pub series: Option<Scalar<'de>>,
    pub time: Option<Scalar<'de>>,
}

/// The walk over one record.
pub(super) struct Walk<'w, 'de> {
    pub trie: &'w mut Trie,
    /// By edge of the trie: whether the key was in this record.
    pub seen: &'w mut [bool],
    pub values: &'w mut [f64],
    pub found: Found<'de>,
    /// Whether the deserializer is that of JSON.
    pub json: bool,
    /// Why the walk was broken off, unless the text itself is at fault.
    refusal: Option<Refusal>,
    /// The innermost needed edge whose value could not be read.
    blamed: Option<usize>,
}

impl<'w, 'de> Walk<'w, 'de> {
    pub fn new(trie: &'w mut Trie, seen: &'w mut [bool], values: &'w mut [f64], json: bool) -> Walk<'w, 'de> {
        Walk { trie, seen, values, found: Found::default(), json, refusal: None, blamed: None }
    }

    /// Reads the record.
    pub fn read<D: Deserializer<'de>>(&mut self, record: D) -> Result<(), D::Error> {
        ObjectSeed { walk: self, node: 0 }.deserialize(record)
    }

    /// Reads the value under needed key `edge`.
    #[inline]
    fn value<A: MapAccess<'de>>(&mut self, edge: usize, map: &mut A) -> Result<(), A::Error> {
        if std::mem::replace(&mut self.seen[edge], true) {
            return self.refuse(Refusal::DuplicateField { field: self.trie.edge(edge).path.to_string() });
        }
        let result = match self.trie.edge(edge).want {
            Want::Feature(index) => {
                let mut found = None;
                match map.next_value_seed(NumberSeed { found: &mut found }) {
                    Ok(value) => self.feature(edge, index, value),
                    Err(error) => {
                        let path = &self.trie.edge(edge).path;
                        self.refusal = found.map(|found| wrong_type(path, A_NUMBER, found));
                        Err(error)
                    }
                }
            }
            Want::Object(node) => map.next_value_seed(ObjectSeed { walk: self, node }),
            Want::Text(roles) if self.json => {
                map.next_value::<&'de RawValue>().and_then(|json| self.keep(edge, roles, Scalar::Json(json.get())))
            }
            Want::Text(roles) => map.next_value_seed(ScalarSeed).and_then(|value| self.keep(edge, roles, value)),
        };
        if result.is_err() {
            self.blamed = self.blamed.or(Some(edge));
        }
        result
    }

    fn keep<E: Error>(&mut self, edge: usize, roles: Roles, value: Scalar<'de>) -> Result<(), E> {
        if let Some(index) = roles.feature {
            match value.number() {
                Ok(number) => self.feature(edge, index, number)?,
                Err(found) => {
                    let refusal = wrong_type(&self.trie.edge(edge).path, A_NUMBER, found);
                    return self.refuse(refusal);
                }
            }
        }
        if roles.series && roles.time {
            self.found.series = Some(value.clone());
            self.found.time = Some(value);
        } else if roles.series {
            self.found.series = Some(value);
        } else if roles.time {
            self.found.time = Some(value);
        }
        Ok(())
    }

    #[inline]
    fn feature<E: Error>(&mut self, edge: usize, index: usize, value: f64) -> Result<(), E> {
        if value.is_infinite() {
            let refusal = Refusal::OutOfRange { field: self.trie.edge(edge).path.to_string() };
            return self.refuse(refusal);
        }
        self.values[index] = value;
        Ok(())
    }

    /// Breaks the walk off.
    #[cold]
    fn refuse<T, E: Error>(&mut self, refusal: Refusal) -> Result<T, E> {
        self.refusal = Some(refusal);
        Err(E::custom("refused"))
    }

    /// Why the walk ended before its time. None: the record's text is at fault.
    pub fn refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
    }

    /// What a number that serde_json finds out of range means where it stands.
    pub fn out_of_range(&self) -> Refusal {
        match self.blamed.map(|edge| self.trie.edge(edge)) {
            None => Refusal::NotAnObject { found: "a number" },
            Some(edge) if matches!(edge.want, Want::Object(_)) => wrong_type(&edge.path, "an object", "a number"),
            Some(edge) => Refusal::OutOfRange { field: edge.path.to_string() },
        }
    }
}

/// Reads an object that holds needed keys. Null in its place is an object without them, except at the top.
struct ObjectSeed<'a, 'w, 'de> {
    walk: &'a mut Walk<'w, 'de>,
    node: usize,
}

impl ObjectSeed<'_, '_, '_> {
    #[cold]
    fn refuse<E: Error>(self, found: &'static str) -> Result<(), E> {
        let walk = self.walk;
        let edges = 0..walk.trie.len();
        let field = edges.map(|edge| walk.trie.edge(edge)).find(|edge| edge.want == Want::Object(self.node));
        let refusal = match field {
            None => Refusal::NotAnObject { found },
            Some(edge) => wrong_type(&edge.path, "an object", found),
        };
        walk.refuse(refusal)
    }
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let ObjectSeed { walk, node } = self;
        let mut last = None;
        loop {
            let guess = walk.trie.guess(node, last);
            match map.next_key_seed(KeySeed { trie: walk.trie, node, guess })? {
                None => return Ok(()),
                Some(None) => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(Some(edge)) => {
                    if edge != guess {
                        walk.trie.learn(node, last, edge);
                    }
                    last = Some(edge);
                    walk.value(edge, &mut map)?;
                }
            }
        }
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.node == 0 { self.refuse("null") } else { Ok(()) }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.refuse("a boolean")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.refuse("a number")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.refuse("a number")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.refuse("a number")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.refuse("a string")
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<(), E> {
        self.refuse(BYTES)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        self.refuse(EXTENSION)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.refuse("an array")
    }
}

/// Looks a key up without copying it.
struct KeySeed<'a> {
    trie: &'a Trie,
    node: usize,
    guess: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    #[inline]
    fn visit_str<E: Error>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.trie.find(self.node, self.guess, key.as_bytes()))
    }

    // Keys that are no texts are none that anybody needs.

    fn visit_bool<E: Error>(self, _: bool) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inside: D) -> Result<Option<usize>, D::Error> {
        inside.deserialize_ignored_any(IgnoredAny).map(|_| None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<usize>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<usize>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Reads a number, a boolean as 0 or 1, null as NaN. Anything else is an error, with its kind in `found`.
struct NumberSeed<'a> {
    found: &'a mut Option<&'static str>,
}

impl NumberSeed<'_> {
    #[cold]
    fn refuse<E: Error>(self, found: &'static str) -> Result<f64, E> {
        *self.found = Some(found);
        Err(E::custom("refused"))
    }
}

impl<'de> DeserializeSeed<'de> for NumberSeed<'_> {
    type Value = f64;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NumberSeed<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A_NUMBER)
    }

    #[inline]
    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    #[inline]
    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    #[inline]
    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<f64, E> {
        Ok(f64::from(value))
    }

    fn visit_unit<E: Error>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<f64, E> {
        self.refuse("a string")
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<f64, E> {
        self.refuse(BYTES)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<f64, D::Error> {
        self.refuse(EXTENSION)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<f64, A::Error> {
        self.refuse("an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<f64, A::Error> {
        self.refuse("an object")
    }
}
