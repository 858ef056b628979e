//! The needed keys of a record as a tree: which fields of which objects the decoder has to read.

use std::collections::BTreeMap;

use super::schema::check_nesting;
use super::{FieldPath, SchemaError};

/// All needed keys. Node 0 is the top of the record; every other node is an object on the way to a needed field.
#[derive(Debug, Clone)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    plain: bool,
}

#[derive(Debug, Clone)]
struct Node {
    keys: Keys,
    /// The edge that came first in the object last time.
    first: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Edge {
    key: Box<str>,
    /// The first eight bytes of the key and the quote after it, and which of them there are.
    head: u64,
    mask: u64,
    /// The edge that came after this one last time.
    next: usize,
    pub want: Want,
    /// The path's text, for messages.
    pub path: Box<str>,
}

/// See [`Edge`].
fn head(key: &str) -> (u64, u64) {
    let (mut head, mut mask) = ([0; 8], [0; 8]);
    for (at, byte) in key.bytes().chain([b'"']).take(8).enumerate() {
        (head[at], mask[at]) = (byte, 0xff);
    }
    (u64::from_le_bytes(head), u64::from_le_bytes(mask))
}

/// The edges of one node by their keys. Which keys there are is configured, so that nobody from outside can make it slow.
#[derive(Debug, Clone)]
struct Keys {
    /// Each an edge, or none; a key lies at its hash or behind it, before the next that is none.
    slots: Vec<Option<u32>>,
}

impl Keys {
    fn new<'a>(keys: impl ExactSizeIterator<Item = (&'a str, usize)>) -> Keys {
        let mut slots = vec![None; (2 * keys.len()).next_power_of_two().max(2)];
        for (key, edge) in keys {
            let mut at = Keys::hash(key.as_bytes());
            while slots[at & (slots.len() - 1)].is_some() {
                at = at.wrapping_add(1);
            }
            let mask = slots.len() - 1;
            // There are at most a few thousand.
            slots[at & mask] = Some(edge as u32);
        }
        Keys { slots }
    }

    #[inline]
    fn find(&self, key: &[u8], edges: &[Edge]) -> Option<usize> {
        let mut at = Keys::hash(key);
        loop {
            let edge = self.slots[at & (self.slots.len() - 1)]? as usize;
            if edges[edge].key.as_bytes() == key {
                return Some(edge);
            }
            at = at.wrapping_add(1);
        }
    }

    /// Eight bytes at a time, multiplied and folded.
    #[inline]
    fn hash(key: &[u8]) -> usize {
        let mut hash = key.len() as u64;
        for part in key.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        hash as usize
    }
}

/// What is to be done with the value under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// It is the feature of this index.
    Feature(usize),
    /// It is kept as JSON text until the object was read.
    Text(Roles),
    /// It is an object; its node.
    Object(usize),
}

/// What a field is used for; it may be used for several things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Roles {
    pub feature: Option<usize>,
    pub series: bool,
    pub time: bool,
}

/// A needed field on its way into the trie.
struct Field<'a> {
    path: &'a FieldPath,
    keys: Vec<String>,
    roles: Roles,
}

impl Trie {
    /// `Nested` if a field is wanted as a value and as an object.
    pub fn new(
        features: &[FieldPath],
        series: Option<&FieldPath>,
        time: Option<&FieldPath>,
    ) -> Result<Trie, SchemaError> {
        let mut roles: BTreeMap<&FieldPath, Roles> = BTreeMap::new();
        for (index, path) in features.iter().enumerate() {
            roles.entry(path).or_default().feature = Some(index);
        }
        if let Some(path) = series {
            roles.entry(path).or_default().series = true;
        }
        if let Some(path) = time {
            roles.entry(path).or_default().time = true;
        }
        check_nesting(roles.keys().copied())?;
        let fields: Vec<Field<'_>> =
            roles.into_iter().map(|(path, roles)| Field { path, keys: path.keys(), roles }).collect();
        let mut trie = Trie { nodes: vec![], edges: vec![], plain: true };
        trie.add_node(&fields.iter().collect::<Vec<_>>(), 0);
        trie.plain = trie.edges.iter().all(|edge| !edge.key.contains(['"', '\\']));
        Ok(trie)
    }

    /// Number of edges; they are numbered from 0.
    pub fn len(&self) -> usize {
        self.edges.len()
    }

    pub fn edge(&self, edge: usize) -> &Edge {
        &self.edges[edge]
    }

    /// The edge that will be next in `node` after edge `last`, if objects have their keys in the order of last time.
    pub fn guess(&self, node: usize, last: Option<usize>) -> usize {
        match last {
            None => self.nodes[node].first,
            Some(edge) => self.edges[edge].next,
        }
    }

    /// The edge of `key` in `node`, first looked for at `guess`.
    #[inline]
    pub fn find(&self, node: usize, guess: usize, key: &str) -> Option<usize> {
        match self.edges.get(guess) {
            Some(edge) if *edge.key == *key => Some(guess),
            _ => self.look_up(node, key.as_bytes()),
        }
    }

    /// The edge of `key` in `node`.
    #[inline]
    pub fn look_up(&self, node: usize, key: &[u8]) -> Option<usize> {
        self.nodes[node].keys.find(key, &self.edges)
    }

    /// The length of the edge's key, if `text` begins with that and a quote.
    #[inline]
    pub fn starts(&self, edge: usize, text: &[u8]) -> Option<usize> {
        let edge = self.edges.get(edge)?;
        let (key, length) = (edge.key.as_bytes(), edge.key.len());
        if let Some(first) = text.first_chunk() {
            if (u64::from_le_bytes(*first) ^ edge.head) & edge.mask != 0 {
                return None;
            }
            if length < 8 {
                return Some(length);
            }
        }
        (text.starts_with(key) && text.get(length) == Some(&b'"')).then_some(length)
    }

    /// Whether every key is written in JSON as it is.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Remembers that `found` came after `last` in `node`.
    pub fn learn(&mut self, node: usize, last: Option<usize>, found: usize) {
        match last {
            None => self.nodes[node].first = found,
            Some(edge) => self.edges[edge].next = found,
        }
    }

    /// Adds the object at `depth` keys from the top that holds `fields`; returns its node.
    fn add_node(&mut self, fields: &[&Field<'_>], depth: usize) -> usize {
        let mut by_key: BTreeMap<&str, Vec<&Field<'_>>> = BTreeMap::new();
        for field in fields {
            by_key.entry(&field.keys[depth]).or_default().push(field);
        }
        let node = self.nodes.len();
        let start = self.edges.len();
        let count = by_key.len();
        let keys = Keys::new(by_key.keys().enumerate().map(|(at, key)| (*key, start + at)));
        self.nodes.push(Node { keys, first: start });
        for (at, (key, inside)) in by_key.iter().enumerate() {
            let first = inside[0];
            let path = first.path.ancestors().nth(depth).unwrap_or(first.path.as_str());
            // A guess never leaves its node: the last edge is followed by the first.
            let next = start + (at + 1) % count;
            let (head, mask) = head(key);
            self.edges.push(Edge { key: (*key).into(), head, mask, next, want: first.roles.want(), path: path.into() });
        }
        for (at, inside) in by_key.values().enumerate() {
            if inside[0].keys.len() > depth + 1 {
                self.edges[start + at].want = Want::Object(self.add_node(inside, depth + 1));
            }
        }
        node
    }
}

impl Roles {
    fn want(self) -> Want {
        match self {
            Roles { feature: Some(index), series: false, time: false } => Want::Feature(index),
            several => Want::Text(several),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(texts: &[&str]) -> Vec<FieldPath> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn keys_lead_to_what_is_wanted_of_them() {
        let trie = Trie::new(&paths(&["b", "o.x", r"o.p\.q", "t"]), None, Some(&"t".parse().unwrap())).unwrap();
        let b = trie.find(0, 0, "b").unwrap();
        assert_eq!(trie.edge(b).want, Want::Feature(0));
        let t = trie.find(0, b, "t").unwrap();
        assert_eq!(trie.edge(t).want, Want::Text(Roles { feature: Some(3), series: false, time: true }));
        let o = trie.find(0, b, "o").unwrap();
        assert_eq!(&*trie.edge(o).path, "o");
        let Want::Object(node) = trie.edge(o).want else { panic!("{:?}", trie.edge(o)) };
        let q = trie.find(node, 0, "p.q").unwrap();
        assert_eq!((trie.edge(q).want, &*trie.edge(q).path), (Want::Feature(2), r"o.p\.q"));
        assert_eq!(trie.find(0, b, "x"), None);
        assert_eq!(trie.find(node, trie.guess(node, None), "b"), None);
    }

    #[test]
    fn guesses_follow_the_order_of_the_last_object() {
        let mut trie = Trie::new(&paths(&["a", "b", "c"]), None, None).unwrap();
        for _ in 0..2 {
            let mut last = None;
            for key in ["c", "a", "b"] {
                let found = trie.find(0, trie.guess(0, last), key).unwrap();
                trie.learn(0, last, found);
                last = Some(found);
            }
        }
        let c = trie.guess(0, None);
        let a = trie.guess(0, Some(c));
        assert_eq!([c, a, trie.guess(0, Some(a))].map(|e| trie.edge(e).path.to_string()), ["c", "a", "b"]);
    }

    #[test]
    fn a_field_cannot_be_value_and_object() {
        let error = Trie::new(&paths(&["pump.flow"]), Some(&"pump".parse().unwrap()), None).unwrap_err();
        assert!(matches!(error, SchemaError::Nested { .. }), "{error}");
        let error = Trie::new(&paths(&["pump"]), None, Some(&"pump.at".parse().unwrap())).unwrap_err();
        assert!(matches!(error, SchemaError::Nested { .. }), "{error}");
    }
}
