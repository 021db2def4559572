//! Reads fields of JSON objects, in the variants that different tools write.

use std::borrow::Cow;

use serde_json::Value;

/// A field as text. Numbers and booleans are written out. A null, empty or missing field, and `-`, is `None`.
pub(super) fn text(value: Option<&Value>) -> Option<Cow<'_, str>> {
    match value? {
        Value::String(text) if text.is_empty() || text == "-" => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        // An XML element that was converted to JSON.
        Value::Object(object) => text(object.get("#text")),
        _ => None,
    }
}

/// The field `a.b`: either a key with that name, or a key `b` of an object `a`.
pub(super) fn field<'v>(value: &'v Value, name: &str) -> Option<Cow<'v, str>> {
    if let Some(found) = text(value.get(name)) {
        return Some(found);
    }
    let (outer, inner) = name.split_once('.')?;
    text(value.get(outer)?.get(inner))
}

/// The message of a JSON error without its position, because the caller reports the line of the file.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// Quotes a value and cuts it to 60 characters for a message.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
