//! The literals of which every match of a regular expression contains one.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::{ExtractKind, Extractor, Seq};
use regex_syntax::hir::{Hir, HirKind};

use super::folded::fold;

/// Literals of one expression at most, so that one vector search finds them.
const LITERALS_MAX: usize = 64;
/// The same, where most of them differ in case alone.
const SPELLINGS_MAX: usize = 1024;
/// Shorter literals occur almost everywhere.
const LITERAL_BYTES_MIN: usize = 3;
/// Parts of an expression that are looked at.
const PARTS_MAX: usize = 64;
/// Expressions within expressions that are looked at.
const DEPTH_MAX: usize = 32;

/// The literals of which every match contains one; `None` if there are none that help.
pub(super) fn literals(expression: &str) -> Option<Vec<Vec<u8>>> {
    let hir = ParserBuilder::new().utf8(false).unicode(true).build().parse(expression).ok()?;
    best(&hir, DEPTH_MAX)
}

fn best(hir: &Hir, depth: usize) -> Option<Vec<Vec<u8>>> {
    let depth = depth.checked_sub(1)?;
    let found = match hir.kind() {
        HirKind::Capture(capture) => best(&capture.sub, depth),
        HirKind::Repetition(repetition) if repetition.min > 0 => best(&repetition.sub, depth),
        HirKind::Alternation(branches) => {
            let all: Option<Vec<_>> = branches.iter().map(|branch| best(branch, depth)).collect();
            all.map(|all| all.concat()).filter(|all| are_few(all))
        }
        HirKind::Concat(parts) => {
            let within = parts.iter().take(PARTS_MAX).filter_map(|part| best(part, depth));
            // What begins at a part and goes on in the next ones.
            let from = (0..parts.len().min(PARTS_MAX)).filter_map(|at| {
                let rest = Hir::concat(parts.iter().skip(at).take(PARTS_MAX).cloned().collect());
                sequence(&rest, ExtractKind::Prefix)
            });
            within.chain(from).max_by_key(|literals| worth(literals))
        }
        _ => None,
    };
    let whole = [ExtractKind::Prefix, ExtractKind::Suffix].into_iter().filter_map(|kind| sequence(hir, kind));
    found.into_iter().chain(whole).max_by_key(|literals| worth(literals))
}

/// What every match begins or ends with.
fn sequence(hir: &Hir, kind: ExtractKind) -> Option<Vec<Vec<u8>>> {
    // With `(?i)`, each letter doubles the literals, and yet they are searched for at once.
    [SPELLINGS_MAX, LITERALS_MAX].into_iter().find_map(|most| {
        let mut extractor = Extractor::new();
        extractor.kind(kind.clone()).limit_total(most).limit_class(4);
        let mut sequence: Seq = extractor.extract(hir);
        sequence.minimize_by_preference();
        let literals: Vec<Vec<u8>> = sequence.literals()?.iter().map(|literal| literal.as_bytes().to_vec()).collect();
        let helps = !literals.is_empty() && are_few(&literals);
        (helps && literals.iter().all(|literal| literal.len() >= LITERAL_BYTES_MIN)).then_some(literals)
    })
}

/// Whether one vector search finds them.
fn are_few(literals: &[Vec<u8>]) -> bool {
    literals.len() <= LITERALS_MAX || (literals.len() <= SPELLINGS_MAX && fold(literals).is_some())
}

/// The longer the shortest literal and the fewer there are, but for their case, the better.
fn worth(literals: &[Vec<u8>]) -> (usize, usize) {
    let shortest = literals.iter().map(Vec::len).min().unwrap_or(0);
    let count = fold(literals).map_or(literals.len(), |folded| folded.len());
    (shortest.min(8), LITERALS_MAX.saturating_sub(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_match_contains_a_required_literal() {
        for (expression, matches) in [
            ("secret", &["secret"][..]),
            (r"user=\w+", &["user=a", "user=bob"]),
            (r"\w+@evil\.example", &["x@evil.example"]),
            (r"[a-z]{3}SECRET[0-9]+", &["abcSECRET1"]),
            (r"(?i)passw(or)?d=[^&]+", &["password=x", "PASSWD=y", "PaSsWoRd=z"]),
            (r"(GET|POST) /admin", &["GET /admin", "POST /admin"]),
            (r"x(abcd|efgh)+y", &["xabcdy", "xefghabcdy"]),
            (r"^\s*BEGIN (RSA |EC )?PRIVATE KEY", &["BEGIN PRIVATE KEY", " BEGIN EC PRIVATE KEY"]),
        ] {
            let literals = literals(expression).unwrap_or_else(|| panic!("{expression} has literals"));
            assert!(are_few(&literals) && literals.iter().all(|literal| literal.len() >= LITERAL_BYTES_MIN));
            for text in matches {
                let has = |literal: &Vec<u8>| memchr::memmem::find(text.as_bytes(), literal).is_some();
                assert!(literals.iter().any(has), "{expression}: {text} has none of {literals:?}");
            }
        }
        let any_case = literals(r"(?i)passw(or)?d=[^&]+").unwrap();
        assert!(
            any_case.iter().all(|literal| literal.len() >= 6),
            "short literals are in too many packets: {any_case:?}"
        );
        for expression in ["[0-9]{16}", ".*", "a|b", r"\w+", "ab?c?", "(x|)y"] {
            assert_eq!(literals(expression), None, "{expression}");
        }
    }
}
