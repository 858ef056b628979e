//! A writer's schema, made ready for reading: types by index, names resolved. What has no bytes (defaults, aliases, documentation) is not
//! looked at. Schemas come from outside: whatever they say, this ends soon.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::SchemaText;

/// Which type of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(usize);

/// A type, as far as its bytes are concerned.
#[derive(Debug, Clone, PartialEq)]
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
/// Bytes of its text, with that of those that it refers to, at most.
const TEXT_MAX: usize = 1 << 20;
/// Digits behind the point that a decimal may have.
const SCALE_MAX: u64 = 400;

/// A schema.
#[derive(Debug)]
pub(in crate::record) struct Plan {
    nodes: Vec<Node>,
    /// By full name.
    named: HashMap<String, Id>,
    top: Id,
}

impl Plan {
    /// # Errors
    /// The text is no schema of Avro (1.12, "Schema Declaration"), or it is larger than anybody needs.
    pub fn new(text: &SchemaText) -> Result<Plan, String> {
        let texts = text.references.iter().chain([&text.schema]);
        if texts.clone().map(String::len).sum::<usize>() > TEXT_MAX {
            return Err(format!("it is longer than {TEXT_MAX} bytes"));
        }
        let mut plan = Plan { nodes: vec![], named: HashMap::new(), top: Id(0) };
        for text in texts {
            // Nests as deep as the text, which serde_json bounds.
            let schema = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
            plan.top = plan.add(&schema, "").map_err(|why| format!("it is no schema of Avro: {why}"))?;
        }
        Ok(plan)
    }

    /// How many types there are.
    pub(super) fn size(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0]
    }

    pub(super) fn top(&self) -> Id {
        self.top
    }

    fn push(&mut self, node: Node) -> Result<Id, String> {
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("more than {NODES_MAX} types"));
        }
        self.nodes.push(node);
        Ok(Id(self.nodes.len() - 1))
    }

    /// `space`: the namespace around it.
    fn add(&mut self, schema: &Value, space: &str) -> Result<Id, String> {
        match schema {
            Value::String(name) => match primitive(name) {
                Some(node) => self.push(node),
                None => self.refer(name, space),
            },
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.add(branch, space)).collect::<Result<_, _>>()?;
                self.push(Node::Union(branches))
            }
            Value::Object(schema) => self.complex(schema, space),
            _ => Err("a type that is neither name, list nor object".to_owned()),
        }
    }

    fn refer(&self, name: &str, space: &str) -> Result<Id, String> {
        let found = self.named.get(&full(name, space)).or_else(|| self.named.get(name));
        found.copied().ok_or_else(|| format!("no type `{name}`"))
    }

    fn complex(&mut self, schema: &Map<String, Value>, space: &str) -> Result<Id, String> {
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // A type in braces.
            Some(inner) => return self.add(inner, space),
            None => return Err("an object without `type`".to_owned()),
        };
        let of = |key: &str| schema.get(key).ok_or_else(|| format!("{kind} without `{key}`"));
        match kind {
            "array" => {
                let items = self.add(of("items")?, space)?;
                self.push(Node::Array(items))
            }
            "map" => {
                let values = self.add(of("values")?, space)?;
                self.push(Node::Map(values))
            }
            "fixed" => {
                let size = of("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or("fixed of a `size` that is none")?;
                let node = match scale(schema) {
                    Some(scale) => Node::Decimal { fixed: Some(size), scale },
                    None => Node::Fixed(size),
                };
                self.define(schema, space, node).map(|(id, _)| id)
            }
            "enum" => {
                let symbols = of("symbols")?.as_array().ok_or("enum of `symbols` that are no list")?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(Into::into));
                let symbols = symbols.collect::<Option<_>>().ok_or("enum of a symbol that is no text")?;
                self.define(schema, space, Node::Symbols(symbols)).map(|(id, _)| id)
            }
            "record" | "error" => {
                let fields = of("fields")?.as_array().ok_or("record of `fields` that are no list")?;
                // Before its fields, which may name it.
                let (id, space) = self.define(schema, space, Node::Null)?;
                let mut named = vec![];
                for field in fields {
                    let name = field.get("name").and_then(Value::as_str).ok_or("a field without `name`")?;
                    let of = field.get("type").ok_or_else(|| format!("field `{name}` without `type`"))?;
                    named.push((name.into(), self.add(of, &space)?));
                }
                self.nodes[id.0] = Node::Record(named);
                Ok(id)
            }
            "bytes" => match scale(schema) {
                Some(scale) => self.push(Node::Decimal { fixed: None, scale }),
                None => self.push(Node::Bytes),
            },
            name => self.add(&Value::String(name.to_owned()), space),
        }
    }

    /// Gives a type its name; with the namespace inside it.
    fn define(&mut self, schema: &Map<String, Value>, space: &str, node: Node) -> Result<(Id, String), String> {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let name = text("name").filter(|name| !name.is_empty()).ok_or("a type without `name`")?;
        let name = full(name, text("namespace").unwrap_or(space));
        let inside = name.rsplit_once('.').map_or("", |(space, _)| space).to_owned();
        let id = self.push(node)?;
        if self.named.insert(name.clone(), id).is_some() {
            return Err(format!("`{name}` is defined twice"));
        }
        Ok((id, inside))
    }
}

fn full(name: &str, space: &str) -> String {
    match space {
        "" => name.to_owned(),
        _ if name.contains('.') => name.to_owned(),
        space => format!("{space}.{name}"),
    }
}

fn primitive(name: &str) -> Option<Node> {
    Some(match name {
        "null" => Node::Null,
        "boolean" => Node::Boolean,
        "int" => Node::Int,
        "long" => Node::Long,
        "float" => Node::Float,
        "double" => Node::Double,
        "bytes" => Node::Bytes,
        "string" => Node::Text,
        _ => return None,
    })
}

/// Of a decimal; one that is not as it should be is none ("Logical Types").
fn scale(schema: &Map<String, Value>) -> Option<usize> {
    let number = |key: &str| schema.get(key).map(Value::as_u64);
    if schema.get("logicalType").and_then(Value::as_str) != Some("decimal") {
        return None;
    }
    let (precision, scale) = (number("precision")??, number("scale").unwrap_or(Some(0))?);
    (precision > 0 && scale <= precision && scale <= SCALE_MAX).then_some(scale as usize)
}
