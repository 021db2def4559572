//! Decodes encodings that hide a text from a search.

/// Maximum number of nested encodings.
const ROUNDS_MAX: usize = 16;

/// The text with percent encoding undone, once.
pub(crate) fn url(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The text with the lookups of Log4j resolved that yield parts of it: `${lower:j}`, `${::-j}`, `${env:X:-j}`.
pub(crate) fn log4j(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..ROUNDS_MAX {
        let Some(next) = innermost(&text) else { break };
        text = next;
    }
    text
}

/// Resolves all innermost lookups; `None` if there are none to resolve.
fn innermost(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut changed = false;
    let mut rest = text;
    while let Some(close) = rest.find('}') {
        let Some(open) = rest[..close].rfind("${") else {
            out.push_str(&rest[..=close]);
            rest = &rest[close + 1..];
            continue;
        };
        out.push_str(&rest[..open]);
        let inner = &rest[open + 2..close];
        match resolved(inner) {
            Some(value) => {
                out.push_str(&value);
                changed = true;
            }
            None => out.push_str(&rest[open..=close]),
        }
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    changed.then_some(out)
}

fn resolved(inner: &str) -> Option<String> {
    if let Some((_, default)) = inner.split_once(":-") {
        return Some(default.to_owned());
    }
    let (kind, value) = inner.split_once(':')?;
    match kind.trim().to_ascii_lowercase().as_str() {
        "lower" => Some(value.to_lowercase()),
        "upper" => Some(value.to_uppercase()),
        _ => None,
    }
}
