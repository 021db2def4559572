//! The meaning of the query strings of `/v1/hunt` and `/v1/files`, as [`parameters`](super::parameters) has it for packets
//! and sessions.

use super::error::{ParameterError, wrong};
use super::page_answers::OwnRule;
use super::parameters::{Clock, request};
use super::problem::Problem;
use super::question::{FilesQuestion, HuntQuestion, OwnRuleQuestion, SelectionQuestion};
use super::value::Texts;
use hunt::attack::Attack;
use hunt::{ContentPatterns, SearchScope};
use objects::ObjectFilter;
use query::Request;

/// What `/v1/hunt` is asked for.
#[derive(Clone, Debug, Default)]
pub struct HuntQuery {
    /// In which packets.
    pub request: Request,
    /// For what.
    pub wanted: ContentPatterns,
    /// Indicators.
    pub indicators: Vec<String>,
    /// What is searched.
    pub scope: SearchScope,
    /// The most matches.
    pub limit: Option<u64>,
    /// Whether the attack is a rule of the client's own, whose test conversations have to pass first.
    pub is_own: bool,
}

/// What `/v1/files` is asked for.
#[derive(Clone, Debug, Default)]
pub struct FilesQuery {
    /// In which packets.
    pub request: Request,
    /// Which objects.
    pub filter: ObjectFilter,
    /// The most objects.
    pub limit: Option<u64>,
}

/// Patterns of one kind in a question.
const PATTERNS_MAX: usize = 64;
/// Regular expressions in a question; each may compile to a megabyte.
const REGEXES_MAX: usize = 8;
/// What a regular expression of a question may compile to.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Test conversations of a rule that a recorder runs.
const CASES_MAX: usize = 32;

impl HuntQuery {
    /// Reads the query string of a URL, without its question mark.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        let HuntQuestion { selection, rules } = HuntQuestion::read(query)?;
        let texts = |name, texts: Option<Texts>, most| {
            let texts = texts.unwrap_or_default().0;
            if texts.len() > most { Err(ParameterError::TooMany(name, most)) } else { Ok(texts) }
        };
        let mut wanted = ContentPatterns {
            texts: texts("text", rules.text, PATTERNS_MAX)?,
            bytes: texts("bytes", rules.bytes, PATTERNS_MAX)?,
            regexes: texts("regex", rules.regex, REGEXES_MAX)?,
            attacks: Vec::new(),
            regex_bytes_max: Some(REGEX_BYTES_MAX),
        };
        for name in texts("attack", rules.attack, PATTERNS_MAX)? {
            let attacks = hunt::attacks_named(&name).unwrap_or_default();
            if attacks.is_empty() {
                return Err(wrong("attack", &name, "all, or a name that retrocap hunt --attack list shows"));
            }
            wanted.attacks.extend(attacks);
        }
        wanted.attacks.sort_by(|a, b| a.name.cmp(&b.name));
        wanted.attacks.dedup_by(|a, b| a.name == b.name);
        let indicators = texts("ioc", rules.ioc, PATTERNS_MAX)?;
        if wanted.is_empty() && indicators.is_empty() {
            return Err(ParameterError::NothingWanted);
        }
        Ok(Self {
            request: request(selection, clock)?,
            wanted,
            indicators,
            scope: rules.place.unwrap_or_default(),
            limit: rules.limit.map(Into::into),
            is_own: false,
        })
    }
}

impl HuntQuery {
    /// Reads the query string and the body of `POST /v1/hunt/rule`. The rule's test conversations are not run yet.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn of_rule(query: &str, body: &[u8], clock: Clock) -> Result<Self, Problem> {
        let OwnRuleQuestion { selection, rules } = OwnRuleQuestion::read(query)?;
        let OwnRule { rule } = serde_json::from_slice(body).map_err(|error| {
            Problem::bad_query(format!("{error}; send JSON like {{\"rule\": \"name = …\"}}, the text of a rule"))
        })?;
        let attack = Attack::read(&rule).map_err(|error| Problem::bad_query(error.to_string()))?;
        if attack.cases.len() > CASES_MAX {
            let cases = attack.cases.len();
            let sentence = format!(
                "rule {}: it has {cases} test conversations, and a recorder runs {CASES_MAX} at most",
                attack.name
            );
            return Err(Problem::bad_query(sentence));
        }
        let wanted = ContentPatterns {
            attacks: vec![attack],
            regex_bytes_max: Some(REGEX_BYTES_MAX),
            ..ContentPatterns::default()
        };
        let limit = rules.limit.map(Into::into);
        Ok(Self { request: request(selection, clock)?, wanted, is_own: true, limit, ..Self::default() })
    }
}

impl FilesQuery {
    /// Reads the query string of a URL, without its question mark.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        let FilesQuestion { selection, rules } = FilesQuestion::read(query)?;
        let kinds = rules.kind.unwrap_or_default().0;
        if let Some(kind) = kinds.iter().find(|kind| !objects::KINDS.contains(&kind.as_str())) {
            return Err(wrong("kind", kind, "http, smtp, imap, pop3, ftp, smb, nfs or tftp"));
        }
        let sha256 = rules.sha256.map(|hash| hash.to_ascii_lowercase());
        if let Some(hash) = sha256.as_ref().filter(|hash| !is_sha256(hash)) {
            return Err(wrong("sha256", hash, "a SHA-256, which has 64 hexadecimal digits"));
        }
        let filter = ObjectFilter { kinds, mime: rules.mime, sha256, size_min: rules.min };
        Ok(Self { request: request(selection, clock)?, filter, limit: rules.limit.map(Into::into) })
    }

    /// Reads the id of an object and the query string that selects packets. The answer says whether the object is whole.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read_one(id: &str, query: &str, clock: Clock) -> Result<(Self, bool), ParameterError> {
        let (hash, complete) = id.strip_suffix(".partial").map_or((id, true), |hash| (hash, false));
        if !is_sha256(hash) {
            return Err(wrong("id", id, "the SHA-256 of an object, as in the path that /v1/files lists"));
        }
        let request = request(SelectionQuestion::read(query)?, clock)?;
        let filter = ObjectFilter { sha256: Some(hash.to_ascii_lowercase()), ..ObjectFilter::default() };
        Ok((Self { request, filter, limit: Some(1) }, complete))
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::time::Timestamp;

    #[test]
    fn a_question_without_rules_or_with_odd_ones_is_refused() {
        let clock = Clock { now: Timestamp::from_unix(1_000_000, 0), newest: None };
        let many: Vec<String> = (0..9).map(|n| format!("regex={n}")).collect();
        for (query, expected) in [
            ("", "text, bytes, regex, ioc or attack"),
            ("since=1h", "text, bytes, regex, ioc or attack"),
            ("attack=heartbled", "attack"),
            ("text=a&in=everywhere", "payload, stream or file"),
            (&many.join("&"), "more than 8 times"),
        ] {
            let error = HuntQuery::read(query, clock).unwrap_err().to_string();
            assert!(error.contains(expected), "{query}: {error}");
        }
        let hunt = HuntQuery::read("attack=heartbleed&attack=all&text=x&limit=3", clock).unwrap();
        assert!(hunt.wanted.attacks.len() >= 9 && hunt.limit == Some(3));
        let rule = |rule: &str| {
            HuntQuery::of_rule("limit=3", serde_json::json!({ "rule": rule }).to_string().as_bytes(), clock)
        };
        let heartbleed = include_str!("../../hunt/attacks/heartbleed.toml");
        let query = rule(heartbleed).unwrap();
        assert!(query.is_own && query.wanted.attacks[0].name == "heartbleed" && query.limit == Some(3));
        for (text, expected) in
            [("", "name"), ("name = 1", "name"), (&heartbleed.replace("[[match]]", "[[mtch]]"), "mtch")]
        {
            let problem = rule(text).unwrap_err();
            assert!(problem.detail.untrusted().contains(expected), "{problem:?}");
        }
        assert!(FilesQuery::read("kind=gopher", clock).unwrap_err().to_string().contains("smtp"));
        assert!(FilesQuery::read("sha256=12", clock).is_err());
        let hash = "A".repeat(64);
        let (one, complete) = FilesQuery::read_one(&format!("{hash}.partial"), "since=1h", clock).unwrap();
        assert_eq!((one.filter.sha256, complete), (Some("a".repeat(64)), false));
        for id in ["", "../../etc/passwd", "1", &"g".repeat(64)] {
            assert!(FilesQuery::read_one(id, "", clock).is_err(), "{id}");
        }
    }
}
