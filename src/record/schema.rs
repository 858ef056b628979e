//! Which fields a model looks at, and in which order.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::FieldPath;

/// Bound of the number of features.
pub const MAX_FEATURES: usize = 4096;
/// Bound of the different fields that are looked at, which bounds the memory they take (about 32 MB).
pub(super) const MAX_FIELDS: usize = 65_536;

/// The ordered features of a model: 1 to [`MAX_FEATURES`] paths, all different, none inside another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<FieldPath>", into = "Vec<FieldPath>")]
pub struct Schema(Vec<FieldPath>);

/// Why there is no schema, or none that fits the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("list at least one feature, found none")]
    NoFeatures,
    #[error("list at most {MAX_FEATURES} features, found {found}")]
    TooManyFeatures { found: usize },
    #[error("list feature `{path}` once, found it twice")]
    Duplicate { path: FieldPath },
    #[error("read `{path}` either as a value or as an object, found a field `{child}` inside it")]
    Nested { path: String, child: FieldPath },
    #[error("use a model of the features in input.features; `{path}` is {place}")]
    OtherFeatures { path: FieldPath, place: &'static str },
    #[error("read `{path}` from a line; input.csv_columns names no such column")]
    NoColumn { path: FieldPath },
    #[error("learn from at least one record, found none that decodes")]
    NoRecords,
    #[error("find a number or boolean in at least half of {records} records, found no such field; list input.features")]
    NothingNumeric { records: usize },
    #[error(
        "find the common fields of {records} records, found more than {max} different ones; list input.features",
        max = MAX_FIELDS
    )]
    TooManyFields { records: usize },
}

impl Schema {
    pub fn new(features: Vec<FieldPath>) -> Result<Schema, SchemaError> {
        if features.is_empty() {
            return Err(SchemaError::NoFeatures);
        }
        if features.len() > MAX_FEATURES {
            return Err(SchemaError::TooManyFeatures { found: features.len() });
        }
        let mut known = HashSet::new();
        for path in &features {
            if !known.insert(path.as_str()) {
                return Err(SchemaError::Duplicate { path: path.clone() });
            }
        }
        check_nesting(features.iter())?;
        Ok(Schema(features))
    }

    /// Number of features, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a schema is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn paths(&self) -> &[FieldPath] {
        &self.0
    }

    /// The features' names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(FieldPath::as_str)
    }
}

impl TryFrom<Vec<FieldPath>> for Schema {
    type Error = SchemaError;

    fn try_from(features: Vec<FieldPath>) -> Result<Schema, SchemaError> {
        Schema::new(features)
    }
}

impl From<Schema> for Vec<FieldPath> {
    fn from(schema: Schema) -> Vec<FieldPath> {
        schema.0
    }
}

/// `Nested` if one of the paths lies inside another.
pub(super) fn check_nesting<'a>(paths: impl Iterator<Item = &'a FieldPath> + Clone) -> Result<(), SchemaError> {
    let known: HashSet<&str> = paths.clone().map(FieldPath::as_str).collect();
    for child in paths {
        if let Some(path) = child.ancestors().find(|path| known.contains(path)) {
            return Err(SchemaError::Nested { path: path.to_owned(), child: child.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(features: &[&str]) -> Result<Schema, SchemaError> {
        Schema::new(features.iter().map(|f| f.parse().unwrap()).collect())
    }

    #[test]
    fn a_schema_keeps_the_order_of_its_features() {
        let schema = schema(&["b", "a.y", "a.x"]).unwrap();
        assert_eq!(schema.names().collect::<Vec<_>>(), ["b", "a.y", "a.x"]);
        assert_eq!(schema.len(), 3);
    }

    #[test]
    fn a_schema_is_a_list_in_serde_and_is_checked_there() {
        let schema: Schema = serde_json::from_str(r#"["b","a.x"]"#).unwrap();
        assert_eq!(serde_json::to_string(&schema).unwrap(), r#"["b","a.x"]"#);
        assert!(serde_json::from_str::<Schema>(r#"["b","b"]"#).is_err());
        assert!(serde_json::from_str::<Schema>("[]").is_err());
    }

    #[track_caller]
    fn check_refused(features: &[&str], message: &str) {
        assert_eq!(schema(features).unwrap_err().to_string(), message);
    }

    #[test]
    fn lists_that_cannot_be_decoded_are_refused() {
        check_refused(&[], "list at least one feature, found none");
        check_refused(&["a", "b", "a"], "list feature `a` once, found it twice");
        check_refused(
            &["a.b", "a-b", "a.b.c.d"],
            "read `a.b` either as a value or as an object, found a field `a.b.c.d` inside it",
        );
        check_refused(&["a.b", "a"], "read `a` either as a value or as an object, found a field `a.b` inside it");
        let many: Vec<String> = (0..4097).map(|i| format!("f{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check_refused(&many, "list at most 4096 features, found 4097");
        assert_eq!(schema(&many[1..]).unwrap().len(), 4096);
    }

    #[test]
    fn a_dot_inside_a_key_is_no_nesting() {
        assert!(schema(&["a", r"a\.b"]).is_ok());
    }
}
