//! JSON values as YAML.

use serde::ser::{Serialize, Serializer};
use serde_json::Value;

/// The value as a YAML document.
///
/// # Errors
/// It holds a number that is too large for YAML.
pub fn text(value: &Value) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(&Plain(value))
}

/// The documents of a YAML or JSON file; empty ones are left out.
///
/// # Errors
/// It is no YAML; the error has line and column.
pub fn documents(text: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(all.into_iter().filter(|value| !value.is_null()).collect())
}

/// A JSON value for serialisers other than JSON's. Where some crate of the build asks serde_json for
/// numbers of any precision, a value hands them on in a form that only JSON's own serialiser knows.
struct Plain<'a>(&'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => serializer.serialize_i64(whole),
                (None, Some(real)) => serializer.serialize_f64(real),
                (None, None) => Err(serde::ser::Error::custom(format!("{number} is no number of YAML"))),
            },
            Value::Array(items) => serializer.collect_seq(items.iter().map(Plain)),
            Value::Object(fields) => serializer.collect_map(fields.iter().map(|(key, value)| (key, Plain(value)))),
            Value::Null | Value::Bool(_) | Value::String(_) => self.0.serialize(serializer),
        }
    }
}
