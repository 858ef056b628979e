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
    pub token: Token,
    /// The edge that came after this one last time.
    pub next: usize,
    pub want: Want,
    /// The path's text, for messages.
    pub path: Box<str>,
}

/// A key as it is in a JSON text: its quotes, and the colon after it.
#[derive(Debug, Clone)]
pub(super) struct Token {
    text: Box<str>,
    /// The first eight bytes, and which of them there are.
    head: u64,
    mask: u64,
}

impl Token {
    fn new(key: &str) -> Token {
        let text = format!("\"{key}\":");
        let (mut head, mut mask) = ([0; 8], [0; 8]);
        for (at, byte) in text.bytes().take(8).enumerate() {
            (head[at], mask[at]) = (byte, 0xff);
        }
        Token { text: text.into(), head: u64::from_le_bytes(head), mask: u64::from_le_bytes(mask) }
    }

    fn key(&self) -> &[u8] {
        &self.text.as_bytes()[1..self.text.len() - 2]
    }

    /// Where it ends, if it is at `at` of a text and eight bytes of that are.
    #[inline]
    pub fn ends(&self, text: &[u8], at: usize) -> Option<usize> {
        let (head, end) = (text.get(at..)?.first_chunk()?, at + self.text.len());
        let same = (u64::from_le_bytes(*head) ^ self.head) & self.mask == 0
            && (self.text.len() <= 8 || text.get(at + 8..end) == Some(&self.text.as_bytes()[8..]));
        same.then_some(end)
    }
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
    fn find<T>(&self, key: &[u8], is: impl Fn(usize) -> Option<T>) -> Option<T> {
        let mut at = Keys::hash(key);
        loop {
            let edge = self.slots[at & (self.slots.len() - 1)]?;
            if let Some(found) = is(edge as usize) {
                return Some(found);
            }
            at = at.wrapping_add(1);
        }
    }

    /// Eight bytes at a time, multiplied and folded. Those at the end may count twice.
    #[inline]
    fn hash(key: &[u8]) -> usize {
        let mix = |hash: u64, word: u64| {
            let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            product ^ (product >> 32)
        };
        let length = key.len() as u64;
        let hash = if let Some(last) = key.last_chunk() {
            let whole = key.as_chunks().0.iter().fold(length, |hash, word| mix(hash, u64::from_le_bytes(*word)));
            mix(whole, u64::from_le_bytes(*last))
        } else if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
            mix(length, u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)))
        } else {
            mix(length, key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
        };
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
        trie.plain = trie.edges.iter().all(|edge| !edge.token.key().iter().any(|byte| b"\"\\".contains(byte)));
        Ok(trie)
    }

    /// Number of edges; they are numbered from 0.
    pub fn len(&self) -> usize {
        self.edges.len()
    }

    pub fn edge(&self, edge: usize) -> &Edge {
        &self.edges[edge]
    }

    pub fn edges(&self) -> &[Edge] {
        &self.edges
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
    pub fn find(&self, node: usize, guess: usize, key: &[u8]) -> Option<usize> {
        match self.edges.get(guess) {
            Some(edge) if edge.token.key() == key => Some(guess),
            _ => self.nodes[node].keys.find(key, |edge| (self.edges[edge].token.key() == key).then_some(edge)),
        }
    }

    /// The edge of `key` in `node`, whose token is at `at` of `text`, and where that ends.
    #[inline]
    pub fn look_up(&self, node: usize, key: &[u8], text: &[u8], at: usize) -> Option<(usize, usize)> {
        self.nodes[node].keys.find(key, |edge| Some((edge, self.edges[edge].token.ends(text, at)?)))
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
            self.edges.push(Edge { token: Token::new(key), next, want: first.roles.want(), path: path.into() });
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
        let b = trie.find(0, 0, b"b").unwrap();
        assert_eq!(trie.edge(b).want, Want::Feature(0));
        let t = trie.find(0, b, b"t").unwrap();
        assert_eq!(trie.edge(t).want, Want::Text(Roles { feature: Some(3), series: false, time: true }));
        let o = trie.find(0, b, b"o").unwrap();
        assert_eq!(&*trie.edge(o).path, "o");
        let Want::Object(node) = trie.edge(o).want else { panic!("{:?}", trie.edge(o)) };
        let q = trie.find(node, 0, b"p.q").unwrap();
        assert_eq!((trie.edge(q).want, &*trie.edge(q).path), (Want::Feature(2), r"o.p\.q"));
        assert_eq!(trie.find(0, b, b"x"), None);
        assert_eq!(trie.find(node, trie.guess(node, None), b"b"), None);
    }

    #[test]
    fn guesses_follow_the_order_of_the_last_object() {
        let mut trie = Trie::new(&paths(&["a", "b", "c"]), None, None).unwrap();
        for _ in 0..2 {
            let mut last = None;
            for key in ["c", "a", "b"] {
                let found = trie.find(0, trie.guess(0, last), key.as_bytes()).unwrap();
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
