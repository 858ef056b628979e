//! Avro messages with the header of Confluent's schema registry: byte 0, the id of the writer's schema (four bytes, the highest first),
//! then the value as the specification says ("Binary Encoding"). The reader needs no schema of its own: fields are found by name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor, value::StrDeserializer};

mod plan;

pub(super) use plan::Plan;
use plan::{Id, Node};

use super::Refusal;

/// Where the schemas of messages come from.
pub trait WriterSchemas: Send + Sync {
    /// The schema of this id. May wait for an answer, shortly.
    fn get(&self, id: u32) -> Result<SchemaText, NoSchema>;
}

/// A schema as it was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaText {
    pub schema: String,
    /// Schemas whose names it uses, each after those that it uses itself.
    pub references: Vec<String>,
}

/// Why a schema cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSchema {
    pub why: String,
    /// Whether the records that need it are to wait for it.
    pub wait: bool,
}

/// Schemas kept at most.
const KNOWN_MAX: usize = 1_000;
/// Bytes before the value.
const HEADER_BYTES: usize = 5;
/// Values inside values, at most.
const DEPTH_MAX: usize = 128;
/// Values in one message, at most: some take no bytes.
const VALUES_MAX: usize = 1 << 20;
/// Types in the schemas that are kept, at most.
const TYPES_MAX: usize = 1 << 20;
/// How much of a reason is kept.
const WHY_CHARS_MAX: usize = 200;

/// The schemas of one topic, as far as its messages needed them.
#[derive(Clone, Default)]
pub(super) struct Schemas {
    source: Option<Arc<dyn WriterSchemas>>,
    known: HashMap<u32, Arc<Plan>>,
    /// Of all that are known.
    types: usize,
    /// The one asked for last: as a rule a topic has one, and it is asked for twice for each message.
    last: Option<(u32, Arc<Plan>)>,
    /// What was said of the last one that cannot be had.
    refused: Option<(u32, String)>,
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemas").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Schemas {
    pub fn from(source: Arc<dyn WriterSchemas>) -> Schemas {
        Schemas { source: Some(source), ..Schemas::default() }
    }

    /// Why a message must wait for its schema, if it must; `always`, if it cannot be had.
    pub fn wait_for(&mut self, message: &[u8], always: bool) -> Option<String> {
        let (id, _) = parts(message).ok()?;
        self.refused = None;
        match self.learn(id) {
            Err(NoSchema { why, wait }) if wait || always => Some(format!("schema {id}: {why}")),
            Err(NoSchema { why, .. }) => {
                // What is decided here is decided: the registry may say something else a moment later.
                self.refused = Some((id, why));
                None
            }
            Ok(_) => None,
        }
    }

    /// The schema of a message, and its value.
    pub fn of<'a>(&mut self, message: &'a [u8]) -> Result<(Arc<Plan>, &'a [u8]), Refusal> {
        let (id, value) = parts(message)?;
        let plan = match self.refused.take() {
            Some((refused, why)) if refused == id => Err(why),
            _ => self.learn(id).map_err(|no| no.why),
        };
        plan.map(|plan| (plan, value)).map_err(|why| Refusal::NoSchema { id, why })
    }

    fn learn(&mut self, id: u32) -> Result<Arc<Plan>, NoSchema> {
        if let Some((last, plan)) = &self.last
            && *last == id
        {
            return Ok(Arc::clone(plan));
        }
        if let Some(plan) = self.known.get(&id) {
            self.last = Some((id, Arc::clone(plan)));
            return Ok(Arc::clone(plan));
        }
        let Some(source) = &self.source else {
            return Err(NoSchema { why: "there is no schema registry to ask".to_owned(), wait: false });
        };
        let short = |why: String| why.chars().filter(|c| !c.is_control()).take(WHY_CHARS_MAX).collect();
        let text = source.get(id).map_err(|no| NoSchema { why: short(no.why), wait: no.wait })?;
        // It will not get better: an id stands for one text.
        let plan = Plan::new(&text).map(Arc::new).map_err(|why| NoSchema { why: short(why), wait: false })?;
        if self.known.len() >= KNOWN_MAX || self.types + plan.size() > TYPES_MAX {
            self.known.clear();
            self.types = 0;
        }
        self.types += plan.size();
        self.known.insert(id, Arc::clone(&plan));
        Ok(plan)
    }
}

/// The schema's id and the value.
fn parts(message: &[u8]) -> Result<(u32, &[u8]), Refusal> {
    match message.split_first_chunk::<HEADER_BYTES>() {
        // Ids are positive numbers of 32 bits with a sign.
        Some((&[0, a @ 0..0x80, b, c, d], value)) => Ok((u32::from_be_bytes([a, b, c, d]), value)),
        _ => Err(Refusal::InvalidAvro { error: "it begins with no zero byte and schema id".to_owned() }),
    }
}

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error(message.to_string())
    }
}

type Result<T, E = Error> = std::result::Result<T, E>;

/// A value that is being read.
pub(super) struct Reader<'p, 'de> {
    plan: &'p Plan,
    rest: &'de [u8],
    depth: usize,
    values: usize,
}

impl<'p, 'de> Reader<'p, 'de> {
    pub fn new(plan: &'p Plan, value: &'de [u8]) -> Reader<'p, 'de> {
        Reader { plan, rest: value, depth: 0, values: 0 }
    }

    /// The whole value.
    pub fn value(&mut self) -> Value<'_, 'p, 'de> {
        Value { node: self.plan.top(), reader: self }
    }

    /// # Errors
    /// There are bytes after the value.
    pub fn end(&self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(Error(format!("{more} bytes after it"))),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<&'de [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(bytes) else {
            return Err(Error(format!("it ends where {bytes} bytes are due")));
        };
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn long(&mut self) -> Result<i64> {
        let mut bits = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { break };
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(Error("a number of more than ten bytes".to_owned()))
    }

    fn int(&mut self) -> Result<i32> {
        let long = self.long()?;
        i32::try_from(long).map_err(|_| Error(format!("{long} where a 32-bit number is due")))
    }

    fn bytes(&mut self) -> Result<&'de [u8]> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(Error(format!("a length of {length}"))),
        }
    }

    fn text(&mut self) -> Result<&'de str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error("a string that is no UTF-8".to_owned()))
    }

    fn truth(&mut self) -> Result<bool> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(Error(format!("a boolean of {other:?}"))),
        }
    }

    fn one_of(&mut self, what: &str, count: usize) -> Result<usize> {
        let index = self.long()?;
        let within = usize::try_from(index).ok().filter(|&index| index < count);
        within.ok_or_else(|| Error(format!("{what} {index} of {count}")))
    }

    /// The number of items in the next block of an array or map; 0 ends it.
    fn block(&mut self) -> Result<u64> {
        match self.long()? {
            count @ 0.. => Ok(count as u64),
            count => {
                // How many bytes it takes, for readers in a hurry.
                self.long()?;
                Ok(count.unsigned_abs())
            }
        }
    }

    #[inline]
    fn one_more(&mut self) -> Result<()> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Error(format!("more than {VALUES_MAX} values")));
        }
        Ok(())
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error(format!("values more than {DEPTH_MAX} levels deep")));
        }
        Ok(())
    }

    fn skip(&mut self, node: Id) -> Result<()> {
        self.one_more()?;
        let plan = self.plan;
        match plan.node(node) {
            Node::Null => {}
            Node::Boolean => drop(self.truth()?),
            Node::Int => drop(self.int()?),
            Node::Long => drop(self.long()?),
            Node::Float => drop(self.take(4)?),
            Node::Double => drop(self.take(8)?),
            Node::Bytes | Node::Decimal { fixed: None, .. } => drop(self.bytes()?),
            // Looked at, so that no message is taken or refused by what is needed of it.
            Node::Text => drop(self.text()?),
            Node::Fixed(bytes) | Node::Decimal { fixed: Some(bytes), .. } => drop(self.take(*bytes)?),
            Node::Symbols(symbols) => drop(self.one_of("symbol", symbols.len())?),
            Node::Union(branches) => {
                let branch = self.one_of("branch", branches.len())?;
                self.deeper()?;
                self.skip(branches[branch])?;
                self.depth -= 1;
            }
            Node::Array(items) => self.skip_blocks(*items, false)?,
            Node::Map(values) => self.skip_blocks(*values, true)?,
            Node::Record(fields) => {
                self.deeper()?;
                for (_, field) in fields {
                    self.skip(*field)?;
                }
                self.depth -= 1;
            }
        }
        Ok(())
    }

    fn skip_blocks(&mut self, items: Id, keyed: bool) -> Result<()> {
        self.deeper()?;
        loop {
            let count = self.block()?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let before = self.rest.len();
                if keyed {
                    self.text()?;
                }
                self.skip(items)?;
                // Items of no bytes can be as many as they like.
                if self.rest.len() == before {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }
}

/// One value inside the message.
pub(super) struct Value<'r, 'p, 'de> {
    reader: &'r mut Reader<'p, 'de>,
    node: Id,
}

impl<'de> Deserializer<'de> for Value<'_, '_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let Value { reader, node } = self;
        reader.one_more()?;
        let plan = reader.plan;
        match plan.node(node) {
            Node::Null => visitor.visit_unit(),
            Node::Boolean => visitor.visit_bool(reader.truth()?),
            Node::Int => visitor.visit_i64(reader.int()?.into()),
            Node::Long => visitor.visit_i64(reader.long()?),
            Node::Float => visitor.visit_f64(f32::from_le_bytes(array(reader.take(4)?)?).into()),
            Node::Double => visitor.visit_f64(f64::from_le_bytes(array(reader.take(8)?)?)),
            Node::Bytes => visitor.visit_borrowed_bytes(reader.bytes()?),
            Node::Text => visitor.visit_borrowed_str(reader.text()?),
            Node::Fixed(bytes) => visitor.visit_borrowed_bytes(reader.take(*bytes)?),
            Node::Decimal { fixed, scale } => {
                let unscaled = match fixed {
                    Some(bytes) => reader.take(*bytes)?,
                    None => reader.bytes()?,
                };
                match decimal(unscaled, *scale) {
                    Some(number) => visitor.visit_f64(number),
                    None => visitor.visit_borrowed_bytes(unscaled),
                }
            }
            Node::Symbols(symbols) => visitor.visit_str(&symbols[reader.one_of("symbol", symbols.len())?]),
            Node::Union(branches) => {
                let branch = reader.one_of("branch", branches.len())?;
                reader.deeper()?;
                let value = Value { reader, node: branches[branch] }.deserialize_any(visitor)?;
                reader.depth -= 1;
                Ok(value)
            }
            Node::Array(items) => {
                reader.deeper()?;
                let value = visitor.visit_seq(Items { reader, items: *items, left: 0, keyed: false, over: false })?;
                reader.depth -= 1;
                Ok(value)
            }
            Node::Map(values) => {
                reader.deeper()?;
                let value = visitor.visit_map(Items { reader, items: *values, left: 0, keyed: true, over: false })?;
                reader.depth -= 1;
                Ok(value)
            }
            Node::Record(fields) => {
                reader.deeper()?;
                let value = visitor.visit_map(Fields { reader, fields: fields.iter(), next: None })?;
                reader.depth -= 1;
                Ok(value)
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.reader.skip(self.node)?;
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error(format!("{} bytes where {N} are due", bytes.len())))
}

/// Two's complement, the highest byte first, divided by 10^scale; the nearest float. None: more bytes than any sensor has.
fn decimal(unscaled: &[u8], scale: usize) -> Option<f64> {
    const BYTES_MAX: usize = 16;
    if unscaled.len() > BYTES_MAX {
        return None;
    }
    let sign = if unscaled.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    let number = unscaled.iter().fold(sign, |number: i128, &byte| number << 8 | i128::from(byte));
    format!("{number}e-{scale}").parse().ok()
}

/// The fields of a record.
struct Fields<'r, 'p, 'de> {
    reader: &'r mut Reader<'p, 'de>,
    fields: std::slice::Iter<'p, (Box<str>, Id)>,
    next: Option<Id>,
}

impl<'de> MapAccess<'de> for Fields<'_, '_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((name, node)) = self.fields.next() else { return Ok(None) };
        self.next = Some(*node);
        seed.deserialize(StrDeserializer::<Error>::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let node = self.next.take().ok_or_else(|| Error::custom("a value without a key"))?;
        seed.deserialize(Value { reader: self.reader, node })
    }
}

/// The items of an array, or of a map.
struct Items<'r, 'p, 'de> {
    reader: &'r mut Reader<'p, 'de>,
    items: Id,
    /// Left in the block.
    left: u64,
    keyed: bool,
    over: bool,
}

impl Items<'_, '_, '_> {
    /// Whether there is another one.
    fn advance(&mut self) -> Result<bool> {
        if self.left == 0 && !self.over {
            self.left = self.reader.block()?;
            self.over = self.left == 0;
        }
        self.left = self.left.saturating_sub(1);
        Ok(!self.over)
    }
}

impl<'de> MapAccess<'de> for Items<'_, '_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.keyed || !self.advance()? {
            return Ok(None);
        }
        seed.deserialize(serde::de::value::BorrowedStrDeserializer::<Error>::new(self.reader.text()?)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(Value { reader: self.reader, node: self.items })
    }
}

impl<'de> SeqAccess<'de> for Items<'_, '_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if !self.advance()? {
            return Ok(None);
        }
        let before = self.reader.rest.len();
        let item = seed.deserialize(Value { reader: self.reader, node: self.items })?;
        if self.reader.rest.len() == before {
            self.left = 0;
        }
        Ok(Some(item))
    }
}
