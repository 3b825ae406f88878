//! How deep and of how many values JSON may be: what enters, what is written, and, wider, what is read. Nothing that
//! was let in can become what cannot be read.

use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Value};

/// Levels of objects and lists in what enters: bodies, answers, outputs, inputs.
pub const MAX_DEPTH: usize = 64;
/// Values in what enters, those inside of others included. Each costs some 32 bytes of memory and more, however short
/// it is written.
pub const MAX_VALUES: usize = 100_000;
/// Bytes of what a node hands in.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Levels of what is written: what enters, inside a record.
pub(crate) const WRITTEN_DEPTH: usize = 128;
/// Levels of what is read: an earlier version wrote up to 132.
pub(crate) const READ_DEPTH: usize = 256;
/// Bytes of one record.
pub(crate) const MAX_RECORD: usize = 32 * 1024 * 1024;

/// Something is more than is let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBoundsError {
    /// Too many levels.
    #[error("{0} has more than {MAX_DEPTH} levels of objects and lists: make it flatter, or send a part of it as text")]
    Deep(String),
    /// Too many values.
    #[error("{0} has more than {MAX_VALUES} values: send fewer, or a part of them as text")]
    Many(String),
    /// Too many bytes.
    #[error("{0} has more than {MAX_BYTES} bytes: keep it elsewhere, and hand in where")]
    Large(String),
}

/// What a text of JSON is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) depth: usize,
    pub(crate) values: usize,
}

impl Shape {
    /// Of a text that may be JSON or not, without building any of it.
    pub(crate) fn of(text: &[u8]) -> Self {
        let (mut shape, mut depth, mut in_string, mut escaped) = (Self { depth: 0, values: 1 }, 0usize, false, false);
        for byte in text {
            if in_string {
                in_string = escaped || *byte != b'"';
                escaped = !escaped && *byte == b'\\';
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => {
                    depth += 1;
                    shape.values += 1;
                    shape.depth = shape.depth.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                b',' => shape.values += 1,
                _ => {}
            }
        }
        shape
    }
}

/// Checks a text of JSON that enters, before any of it is built. `field` names it in the error.
///
/// # Errors
/// It is deeper, or of more values, than is let in.
pub fn check_text(field: &str, text: &[u8]) -> Result<(), OutOfBoundsError> {
    let shape = Shape::of(text);
    if shape.depth > MAX_DEPTH {
        return Err(OutOfBoundsError::Deep(field.to_owned()));
    }
    if shape.values > MAX_VALUES { Err(OutOfBoundsError::Many(field.to_owned())) } else { Ok(()) }
}

/// Checks an object that enters, key by key. `field` names it in the error, with the key.
///
/// # Errors
/// It is deeper, larger, or of more values, than is let in.
pub fn check(field: &str, fields: &Map<String, Value>) -> Result<(), OutOfBoundsError> {
    let mut left = Left { values: MAX_VALUES, bytes: MAX_BYTES };
    for (key, value) in fields {
        left.take_bytes(key.len()).and_then(|()| left.take(value, MAX_DEPTH - 1)).map_err(|what| {
            let name = format!("{field} {key:?}");
            match what {
                Over::Depth => OutOfBoundsError::Deep(name),
                Over::Values => OutOfBoundsError::Many(name),
                Over::Bytes => OutOfBoundsError::Large(name),
            }
        })?;
    }
    Ok(())
}

enum Over {
    Depth,
    Values,
    Bytes,
}

/// What may still come.
struct Left {
    values: usize,
    bytes: usize,
}

impl Left {
    fn take_bytes(&mut self, bytes: usize) -> Result<(), Over> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Over::Bytes)?;
        Ok(())
    }

    /// Goes no deeper than `levels`, so that it needs no more of the stack than that.
    fn take(&mut self, value: &Value, levels: usize) -> Result<(), Over> {
        self.values = self.values.checked_sub(1).ok_or(Over::Values)?;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.take_bytes(1),
            Value::String(text) => self.take_bytes(text.len()),
            Value::Array(items) => {
                let levels = levels.checked_sub(1).ok_or(Over::Depth)?;
                items.iter().try_for_each(|item| self.take(item, levels))
            }
            Value::Object(fields) => {
                let levels = levels.checked_sub(1).ok_or(Over::Depth)?;
                fields.iter().try_for_each(|(key, item)| {
                    self.take_bytes(key.len())?;
                    self.take(item, levels)
                })
            }
        }
    }
}

/// Reads what was written, by this version or by one whose bounds were wider.
///
/// # Errors
/// It is not what it should be, or deeper than anything that was ever written.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let strict = serde_json::from_slice(bytes);
    if strict.is_ok() || Shape::of(bytes).depth < WRITTEN_DEPTH {
        return strict;
    }
    if Shape::of(bytes).depth > READ_DEPTH {
        return Err(serde_json::Error::custom(format!("it has more than {READ_DEPTH} levels")));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    reader.disable_recursion_limit();
    let value = T::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
