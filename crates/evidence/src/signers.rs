//! The keys that may sign: OpenSSH's file `allowed_signers` (ssh-keygen(1), "ALLOWED SIGNERS").

use crate::signature::{NAMESPACE, Signer};

/// The lines of an `allowed_signers` file that name plain keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedSigners(Vec<AllowedSigner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct AllowedSigner {
    principals: String,
    namespaces: Option<String>,
    valid_after: Option<String>,
    valid_before: Option<String>,
    /// Algorithm and base64, separated by a space.
    key: String,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct SignersError {
    line: usize,
    reason: &'static str,
}

impl AllowedSigners {
    /// Reads the text of such a file. Lines of certificate authorities are skipped, because this program does not check
    /// SSH certificates.
    ///
    /// # Errors
    ///
    /// The first line that cannot be read.
    pub fn read(text: &str) -> Result<Self, SignersError> {
        let mut signers = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let failed = |reason| SignersError { line: at + 1, reason };
            let mut words = line.split_ascii_whitespace();
            let principals = words.next().unwrap_or_default().trim_matches('"').to_owned();
            let mut word = words.next().ok_or(failed("a key is missing"))?;
            let (mut namespaces, mut valid_after, mut valid_before, mut authority) = (None, None, None, false);
            if !is_algorithm(word) {
                for option in word.split_inclusive(',').scan(String::new(), join_quoted).flatten() {
                    let option = option.trim_end_matches(',');
                    let (name, value) = option.split_once('=').unwrap_or((option, ""));
                    let value = Some(value.trim_matches('"').to_owned());
                    match name.to_ascii_lowercase().as_str() {
                        "namespaces" => namespaces = value,
                        "valid-after" => valid_after = value,
                        "valid-before" => valid_before = value,
                        "cert-authority" => authority = true,
                        _ => return Err(failed("an option is not known")),
                    }
                }
                word = words.next().ok_or(failed("a key is missing"))?;
            }
            if !is_algorithm(word) {
                return Err(failed("the kind of the key is unknown"));
            }
            let key = format!("{word} {}", words.next().ok_or(failed("a key is missing"))?);
            if !authority {
                signers.push(AllowedSigner { principals, namespaces, valid_after, valid_before, key });
            }
        }
        Ok(Self(signers))
    }

    /// The principals that the file allows for this key at a time, written as `YYYYMMDDHHMMSS` in UTC.
    pub fn principals(&self, signer: &Signer, at: &str) -> Option<&str> {
        let allowed = self.0.iter().find(|allowed| {
            let in_namespace = |list: &String| list.split(',').any(|pattern| matches(pattern, NAMESPACE));
            allowed.key == signer.public
                && allowed.namespaces.as_ref().is_none_or(in_namespace)
                && allowed.valid_after.as_deref().is_none_or(|after| *padded(after) <= *at)
                && allowed.valid_before.as_deref().is_none_or(|before| *at < *padded(before))
        })?;
        Some(&allowed.principals)
    }
}

/// Joins the parts of an option whose quoted value contains commas.
fn join_quoted(open: &mut String, part: &str) -> Option<Option<String>> {
    open.push_str(part);
    let is_whole = open.matches('"').count().is_multiple_of(2);
    Some(is_whole.then(|| std::mem::take(open)))
}

fn is_algorithm(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-", "rsa-"].iter().any(|start| word.starts_with(start))
}

/// A date with or without a time of day, as digits of the same length.
fn padded(date: &str) -> String {
    let digits = date.trim_end_matches('Z');
    format!("{digits:0<14}")
}

/// Whether `text` matches a pattern with `*` and `?`.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            matches(&pattern[1..], text)
                || text.chars().next().is_some_and(|first| matches(pattern, &text[first.len_utf8()..]))
        }
        (Some('?'), Some(one)) => matches(&pattern[1..], &text[one.len_utf8()..]),
        (Some(wanted), Some(one)) if wanted == one => matches(&pattern[wanted.len_utf8()..], &text[one.len_utf8()..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_decide_for_what_and_when_a_key_is_allowed() {
        let signer = Signer { fingerprint: String::new(), public: "ssh-ed25519 AAAA".to_owned() };
        for (line, allowed) in [
            ("ann@example.org ssh-ed25519 AAAA comment", true),
            ("ann@example.org ssh-ed25519 BBBB", false),
            ("ann@example.org namespaces=\"git,retrocap\" ssh-ed25519 AAAA", true),
            ("ann@example.org namespaces=\"retro*\" ssh-ed25519 AAAA", true),
            ("ann@example.org namespaces=\"git\" ssh-ed25519 AAAA", false),
            ("ann@example.org valid-after=\"20260101\",valid-before=\"20270101\" ssh-ed25519 AAAA", true),
            ("ann@example.org valid-before=\"20260101Z\" ssh-ed25519 AAAA", false),
            ("ann@example.org cert-authority ssh-ed25519 AAAA", false),
            ("# ann@example.org ssh-ed25519 AAAA", false),
        ] {
            let signers = AllowedSigners::read(line).unwrap();
            let expected = allowed.then_some("ann@example.org");
            assert_eq!(signers.principals(&signer, "20261122100000"), expected, "{line}");
        }
        for line in ["ann@example.org", "ann@example.org whatever AAAA", "a namespaces=\"x\" ssh-ed25519"] {
            assert!(AllowedSigners::read(line).is_err(), "{line}");
        }
    }
}
