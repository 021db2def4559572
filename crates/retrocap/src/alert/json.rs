//! Fields of JSON objects, whatever their writer made of them.

use std::borrow::Cow;

use serde_json::Value;

/// A field as text: numbers are written out; what is null, empty or missing is `None`.
pub(super) fn text(value: Option<&Value>) -> Option<Cow<'_, str>> {
    match value? {
        Value::String(text) if text.is_empty() || text == "-" => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        // XML that became JSON.
        Value::Object(object) => text(object.get("#text")),
        _ => None,
    }
}

/// The field `a.b`, written so or as an object within an object.
pub(super) fn field<'v>(value: &'v Value, name: &str) -> Option<Cow<'v, str>> {
    if let Some(found) = text(value.get(name)) {
        return Some(found);
    }
    let (outer, inner) = name.split_once('.')?;
    text(value.get(outer)?.get(inner))
}

/// What is wrong with JSON, without the place, which is the line that is told.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// A value, short enough for a message.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
