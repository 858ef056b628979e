//! A writer's schema, made ready for reading: types by index, names resolved.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};

use super::SchemaText;

/// Which type of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(usize);

/// A type, as far as its bytes are concerned.
#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    /// A number of a given scale, in this many bytes or with their count before them.
    Decimal {
        fixed: Option<usize>,
        scale: usize,
    },
    Symbols(Vec<Box<str>>),
    Union(Vec<Id>),
    Array(Id),
    Map(Id),
    Record(Vec<(Box<str>, Id)>),
}

/// Types in one schema, at most.
const NODES_MAX: usize = 65_536;

/// A schema.
#[derive(Debug)]
pub(in crate::record) struct Plan {
    nodes: Vec<Node>,
    named: HashMap<Name, Id>,
    top: Id,
}

impl Plan {
    /// # Errors
    /// The text is no schema of Avro, or it has more than [`NODES_MAX`] types.
    pub fn new(text: &SchemaText) -> Result<Plan, String> {
        let (schema, references) = match text.references.as_slice() {
            [] => (Schema::parse_str(&text.schema), vec![]),
            // In a list a name may come before its definition.
            references => match Schema::parse_str_with_list(&text.schema, references) {
                Ok((schema, references)) => (Ok(schema), references),
                Err(error) => (Err(error), vec![]),
            },
        };
        let schema = schema.map_err(|error| format!("it is no schema of Avro: {error}"))?;
        let mut plan = Plan { nodes: vec![], named: HashMap::new(), top: Id(0) };
        let all = || references.iter().chain([&schema]);
        // Names first: a schema may use what is defined in a later one.
        all().for_each(|schema| plan.announce(schema));
        for schema in all() {
            plan.top = plan.add(schema)?;
        }
        Ok(plan)
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0]
    }

    pub(super) fn top(&self) -> Id {
        self.top
    }

    fn push(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        Id(self.nodes.len() - 1)
    }

    /// Makes room for the names at the top of the schemas.
    fn announce(&mut self, schema: &Schema) {
        if let Some(name) = schema.name() {
            let id = self.push(Node::Null);
            self.named.insert(name.clone(), id);
        }
    }

    fn add(&mut self, schema: &Schema) -> Result<Id, String> {
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("it has more than {NODES_MAX} types"));
        }
        let node = match schema {
            Schema::Ref { name } => {
                return self.named.get(name).copied().ok_or_else(|| format!("it does not say what `{name}` is"));
            }
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Node::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Node::Long,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::Text,
            Schema::Array(array) => Node::Array(self.add(&array.items)?),
            Schema::Map(map) => Node::Map(self.add(&map.types)?),
            Schema::Union(union) => {
                Node::Union(union.variants().iter().map(|branch| self.add(branch)).collect::<Result<_, _>>()?)
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                return Ok(self.define(&fixed.name, Node::Fixed(fixed.size)));
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Decimal { fixed: None, scale: decimal.scale },
                InnerDecimalSchema::Fixed(fixed) => {
                    let node = Node::Decimal { fixed: Some(fixed.size), scale: decimal.scale };
                    return Ok(self.define(&fixed.name, node));
                }
            },
            Schema::Enum(symbols) => {
                let texts = symbols.symbols.iter().map(|symbol| symbol.as_str().into()).collect();
                return Ok(self.define(&symbols.name, Node::Symbols(texts)));
            }
            Schema::Record(record) => {
                // Before its fields, which may name it.
                let id = self.define(&record.name, Node::Null);
                let mut fields = vec![];
                for field in &record.fields {
                    fields.push((field.name.as_str().into(), self.add(&field.schema)?));
                }
                self.nodes[id.0] = Node::Record(fields);
                return Ok(id);
            }
        };
        Ok(self.push(node))
    }

    fn define(&mut self, name: &Name, node: Node) -> Id {
        match self.named.get(name).copied() {
            Some(id) => {
                self.nodes[id.0] = node;
                id
            }
            None => {
                let id = self.push(node);
                self.named.insert(name.clone(), id);
                id
            }
        }
    }
}
