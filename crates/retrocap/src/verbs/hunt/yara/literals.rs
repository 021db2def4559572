//! The literals of which every stream has one in which a YARA rule can match, so that a recorder leaves out other sessions.
//!
//! A rule whose condition can hold without any of its strings has none, and neither has a string that is compared in ways that
//! hide its bytes (`xor`, `base64`). One such rule means that all packets are searched.

use std::path::PathBuf;

use yara_x_parser::ast::{AST, Expr, HexToken, Item, OfItems, Pattern, PatternSet, Quantifier, Rule, RuleFlags};

use hunt::narrow;

/// Bytes of a file of rules that are read.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Expressions within expressions that are looked at.
const DEPTH_MAX: usize = 64;
/// Shorter literals occur in almost every session.
const LITERAL_BYTES_MIN: usize = 3;
/// Bytes of a literal that are compared.
const LITERAL_BYTES_MAX: usize = 64;
/// Literals of all rules at most: a recorder compares them all with all bytes.
const LITERALS_MAX: usize = 4096;

/// The literals of all rules in these files; `None` if a rule has none, or a file cannot be read.
pub(super) fn of_files(files: &[PathBuf]) -> Option<Vec<Vec<u8>>> {
    let mut literals = Vec::new();
    for file in files {
        if std::fs::metadata(file).ok()?.len() > FILE_BYTES_MAX {
            return None;
        }
        literals.extend(of_text(&std::fs::read(file).ok()?)?);
        literals.sort_unstable();
        literals.dedup();
        if literals.len() > LITERALS_MAX {
            return None;
        }
    }
    Some(literals)
}

fn of_text(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let ast = AST::from(text);
    if !ast.errors().is_empty() || ast.items().any(|item| matches!(item, Item::Include(_))) {
        return None;
    }
    let mut literals = Vec::new();
    // A private rule is not reported by itself.
    for rule in ast.rules().filter(|rule| !rule.flags.contains(RuleFlags::Private)) {
        literals.extend(Strings::of(rule).needed(&rule.condition, DEPTH_MAX)?);
    }
    Some(literals)
}

/// The strings of a rule, each with the literals of which every match has one.
struct Strings<'a>(Vec<(&'a Pattern<'a>, Option<Vec<Vec<u8>>>)>);

impl<'a> Strings<'a> {
    fn of(rule: &'a Rule<'a>) -> Self {
        let patterns = rule.patterns.iter().flatten();
        Self(patterns.map(|pattern| (pattern, literals(pattern))).collect())
    }

    /// The literals of which the data has one wherever a condition holds.
    fn needed(&self, condition: &Expr<'_>, depth: usize) -> Option<Vec<Vec<u8>>> {
        let depth = depth.checked_sub(1)?;
        match condition {
            Expr::False { .. } => Some(Vec::new()),
            Expr::PatternMatch(one) => self.any(|pattern| pattern.identifier().name == one.identifier.name),
            // `#a > 0` and `#a >= 1`
            Expr::Gt(pair) | Expr::Ge(pair) => {
                let (Expr::PatternCount(count), Expr::LiteralInteger(least)) = (&pair.lhs, &pair.rhs) else {
                    return None;
                };
                let least = least.value.saturating_add(i64::from(matches!(condition, Expr::Gt(_))));
                (least >= 1)
                    .then(|| self.any(|pattern| pattern.identifier().name[1..] == count.identifier.name[1..]))
                    .flatten()
            }
            Expr::And(all) => best(all.operands().map(|one| self.needed(one, depth))),
            Expr::Or(all) => joined(all.operands().map(|one| self.needed(one, depth))),
            Expr::Of(of) => match &of.items {
                OfItems::PatternSet(set) => self.of_set(&of.quantifier, set),
                OfItems::BoolExprTuple(all) if is_one_or_more(&of.quantifier) => {
                    let needed = all.iter().map(|one| self.needed(one, depth));
                    if matches!(of.quantifier, Quantifier::All { .. }) { best(needed) } else { joined(needed) }
                }
                OfItems::BoolExprTuple(_) => None,
            },
            Expr::ForOf(of) if asks_for_match(&of.body, depth) => self.of_set(&of.quantifier, &of.pattern_set),
            _ => None,
        }
    }

    fn of_set(&self, quantifier: &Quantifier<'_>, set: &PatternSet<'_>) -> Option<Vec<Vec<u8>>> {
        let is_in = |pattern: &Pattern<'_>| match set {
            PatternSet::Them { .. } => true,
            PatternSet::Set(items) => items.iter().any(|item| item.matches(pattern.identifier())),
        };
        if !is_one_or_more(quantifier) {
            return None;
        }
        if matches!(quantifier, Quantifier::All { .. }) {
            return best(self.0.iter().filter(|(pattern, _)| is_in(pattern)).map(|(_, literals)| literals.clone()));
        }
        self.any(is_in)
    }

    /// One of the literals of these strings.
    fn any(&self, is_in: impl Fn(&Pattern<'_>) -> bool) -> Option<Vec<Vec<u8>>> {
        let needed = joined(self.0.iter().filter(|(pattern, _)| is_in(pattern)).map(|(_, literals)| literals.clone()));
        needed.filter(|literals| !literals.is_empty())
    }
}

/// Whether the body of `for … of` cannot hold without a match of its string. `# < 5` and `not $` can.
fn asks_for_match(body: &Expr<'_>, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match body {
        Expr::PatternMatch(one) => one.identifier.name == "$",
        Expr::Gt(pair) | Expr::Ge(pair) => {
            let least = i64::from(matches!(body, Expr::Ge(_)));
            matches!((&pair.lhs, &pair.rhs), (Expr::PatternCount(count), Expr::LiteralInteger(number))
                if count.identifier.name == "#" && number.value >= least)
        }
        Expr::And(all) => all.operands().any(|one| asks_for_match(one, depth)),
        Expr::Or(all) => all.operands().all(|one| asks_for_match(one, depth)),
        _ => false,
    }
}

/// Whether YARA and Rust read a regular expression alike. They differ in escapes of letters, in classes within classes, and
/// in repetitions without a lower bound. What is not known to be alike is not.
fn is_read_alike(source: &str) -> bool {
    let (mut bytes, mut in_class) = (source.bytes().peekable(), false);
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(b'b' | b'B') if bytes.peek() == Some(&b'{') => return false,
                Some(b'<' | b'>') | None => return false,
                Some(next) if next.is_ascii_punctuation() || b"ntrfaxdDsSwWbB".contains(&next) => {}
                Some(_) => return false,
            },
            b'[' if in_class => return false,
            b'[' => {
                in_class = true;
                bytes.next_if_eq(&b'^');
                if bytes.peek() == Some(&b']') {
                    return false;
                }
            }
            b']' => in_class = false,
            b'&' | b'-' | b'~' if in_class && bytes.peek() == Some(&byte) => return false,
            b'{' if bytes.peek() == Some(&b',') => return false,
            _ if !byte.is_ascii() => return false,
            _ => {}
        }
    }
    true
}

/// Whether a quantifier asks for a match.
fn is_one_or_more(quantifier: &Quantifier<'_>) -> bool {
    match quantifier {
        Quantifier::None { .. } => false,
        Quantifier::All { .. } | Quantifier::Any { .. } => true,
        Quantifier::Percentage(least) | Quantifier::Expr(least) => {
            matches!(least, Expr::LiteralInteger(least) if least.value >= 1)
        }
    }
}

/// What is needed if all hold: the longest literals, and few of them.
fn best(all: impl Iterator<Item = Option<Vec<Vec<u8>>>>) -> Option<Vec<Vec<u8>>> {
    all.flatten().max_by_key(|literals| {
        let shortest = literals.iter().map(Vec::len).min().unwrap_or(usize::MAX);
        (shortest.min(8), std::cmp::Reverse(literals.len()))
    })
}

/// What is needed if one of them holds.
fn joined(all: impl Iterator<Item = Option<Vec<Vec<u8>>>>) -> Option<Vec<Vec<u8>>> {
    all.collect::<Option<Vec<_>>>().map(|all| all.concat())
}

/// The literals of which every match of a string has one.
fn literals(pattern: &Pattern<'_>) -> Option<Vec<Vec<u8>>> {
    let how = pattern.modifiers();
    if how.xor().is_some() || how.base64().is_some() || how.base64wide().is_some() {
        return None;
    }
    let found = match pattern {
        Pattern::Text(text) => {
            let plain = text.text.value.to_vec();
            let wide: Vec<u8> = plain.iter().flat_map(|&byte| [byte, 0]).collect();
            let spellings = match (how.wide().is_some(), how.ascii().is_some()) {
                (true, false) => vec![wide],
                (true, true) => vec![plain, wide],
                _ => vec![plain],
            };
            match how.nocase() {
                None => spellings,
                Some(_) => joined(spellings.iter().map(|bytes| narrow::required_literals(&in_any_case(bytes))))?,
            }
        }
        Pattern::Hex(hex) => vec![longest_run(hex.sub_patterns.iter())],
        Pattern::Regexp(expression) => {
            let source = expression.regexp.src;
            if how.wide().is_some() || !is_read_alike(source) {
                return None;
            }
            let case = if expression.regexp.case_insensitive || how.nocase().is_some() { "i" } else { "" };
            narrow::required_literals(&format!("(?{case}s-u:{source})"))?
        }
    };
    let cut = |mut literal: Vec<u8>| {
        literal.truncate(LITERAL_BYTES_MAX);
        literal
    };
    let found: Vec<Vec<u8>> = found.into_iter().map(cut).collect();
    found.iter().all(|literal| literal.len() >= LITERAL_BYTES_MIN).then_some(found)
}

/// An expression for these bytes in upper and lower case.
fn in_any_case(bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("(?i-u:{escaped})")
}

/// The longest run of bytes that are given in full.
fn longest_run<'a>(tokens: impl Iterator<Item = &'a HexToken>) -> Vec<u8> {
    let (mut longest, mut run) = (Vec::new(), Vec::new());
    for token in tokens {
        match token {
            HexToken::Byte(byte) if byte.mask == 0xff => run.push(byte.value),
            _ => run.clear(),
        }
        if run.len() > longest.len() {
            longest.clone_from(&run);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(strings: &str, condition: &str) -> Option<Vec<String>> {
        let rule = format!("rule r {{ strings: {strings} condition: {condition} }}");
        let literals = of_text(rule.as_bytes())?;
        Some(literals.iter().map(|literal| literal.escape_ascii().to_string()).collect())
    }

    #[test]
    fn expressions_that_rust_reads_in_another_way_have_no_literal() {
        for expression in
            [r"\<html\>\<body\>", r"foo\vbar", r"foo\zbar", "foo[[ab]]bar", "foo[a&&b]bar", "foo{,3}bar", "fooäbar"]
        {
            assert_eq!(of(&format!("$a = /{expression}/"), "$a"), None, "{expression}");
        }
        assert_eq!(of(r"$a = /foo\.bar[^x-z]+\d/", "$a"), Some(vec!["foo.bar".to_owned()]));
    }

    #[test]
    fn a_condition_names_the_strings_without_which_it_does_not_hold() {
        let strings = r#"$a = "alpha" $b = "beta" wide ascii $c = { 01 02 03 ?? 05 06 07 08 } $d = /user=\w+/"#;
        for (condition, literals) in [
            ("$a", &["alpha"][..]),
            ("$a and filesize < 1MB", &["alpha"]),
            ("$a or $c", &["alpha", r"\x05\x06\x07\x08"]),
            ("any of them", &["alpha", "beta", r"b\x00e\x00t\x00a\x00", r"\x05\x06\x07\x08", "user="]),
            ("all of them", &["user="]),
            ("2 of ($a, $d)", &["alpha", "user="]),
            ("#a > 2", &["alpha"]),
            ("for any of ($d) : ( $ in (0..100) )", &["user="]),
            ("$b and (uint16(0) == 0x5a4d or $a)", &["beta", r"b\x00e\x00t\x00a\x00"]),
        ] {
            let expected: Vec<String> = literals.iter().map(|&literal| literal.to_owned()).collect();
            assert_eq!(of(strings, condition), Some(expected), "{condition}");
        }
        for condition in [
            "not $a",
            "for all of them : ( # < 5 )",
            "for any of them : ( not $ )",
            "for all of ($b) : ( filesize > 3 )",
            "filesize < 100",
            "$a or filesize < 100",
            "none of them",
            "0 of them",
            "#a < 3",
            "uint8(0) == 1 or $c",
        ] {
            assert_eq!(of(strings, condition), None, "{condition} can hold without them");
        }
    }

    #[test]
    fn strings_that_hide_their_bytes_have_no_literals() {
        for string in [
            r#"$a = "alpha" xor"#,
            r#"$a = "alpha" base64"#,
            "$a = /x{,3}/",
            "$a = { 01 ?? 02 }",
            r#"$a = "ab""#,
            "$a = /[a-z]+/",
        ] {
            assert_eq!(of(string, "$a"), None, "{string}");
        }
        let any_case = of(r#"$a = "cmd.exe" nocase"#, "$a").unwrap();
        assert!(any_case.len() > 2 && any_case.iter().all(|literal| "cmd.exe".contains(&literal.to_lowercase())));
        assert_eq!(of_text(b"include \"other.yar\" rule r { strings: $a = \"alpha\" condition: $a }"), None);
        assert_eq!(
            of_text(b"rule r { strings: $a = \"alpha\" condition: $b "),
            None,
            "what is not read is not narrowed"
        );
    }
}
