//! Reads what `yara` prints: the rule and the file, then a line for each string: `0x10:5:$a: hello`.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};

/// Bytes of a line that are read. Longer ones are cut.
const LINE_BYTES_MAX: u64 = 4 << 10;
/// Strings of a rule that are kept for one file.
const STRINGS_MAX: usize = 16;
/// Matches of one run that are kept.
const MATCHES_MAX: usize = 1 << 20;

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleMatch {
    pub(super) rule: String,
    /// Offset, length and name of each string.
    pub(super) strings: Vec<(u64, u64, String)>,
    /// The end of the string that ends last, those that are not kept included.
    pub(super) end: u64,
}

/// The matches by the number of the file, and how many were left out.
pub(super) fn read(input: impl BufRead) -> (BTreeMap<usize, Vec<RuleMatch>>, u64) {
    read_up_to(MATCHES_MAX, input)
}

fn read_up_to(most: usize, input: impl BufRead) -> (BTreeMap<usize, Vec<RuleMatch>>, u64) {
    let (mut files, mut current, mut count) = (BTreeMap::<usize, Vec<RuleMatch>>::new(), None, 0);
    let mut left_out = 0;
    lines(input, |line| {
        if let Some(string) = string(line) {
            let rule = current.and_then(|file| files.get_mut(&file)).and_then(|rules| rules.last_mut());
            if let Some(rule) = rule {
                rule.end = rule.end.max(string.0.saturating_add(string.1));
                if rule.strings.len() < STRINGS_MAX {
                    rule.strings.push(string);
                }
            }
            return;
        }
        let Some((rule, file)) = line.split_once(' ').and_then(|(rule, file)| Some((rule, file.parse().ok()?))) else {
            return;
        };
        if count < most {
            count += 1;
            current = Some(file);
            files.entry(file).or_default().push(RuleMatch { rule: rule.to_owned(), strings: Vec::new(), end: 0 });
        } else {
            current = None;
            left_out += 1;
        }
    });
    (files, left_out)
}

/// Passes lines, each cut at its limit.
fn lines(mut input: impl BufRead, mut each: impl FnMut(&str)) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => each(String::from_utf8_lossy(&line).trim_end()),
        }
        if line.last() != Some(&b'\n') && input.skip_until(b'\n').is_err() {
            return;
        }
    }
}

/// A line about a string.
fn string(line: &str) -> Option<(u64, u64, String)> {
    let mut parts = line.strip_prefix("0x")?.splitn(4, ':');
    let offset = u64::from_str_radix(parts.next()?, 16).ok()?;
    let length = parts.next()?.parse().ok()?;
    Some((offset, length, parts.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_strings_are_read_and_long_lines_are_cut() {
        let text = format!("one 3\n0x10:5:$a: hello\n0x20:2:$b: {}\ntwo 3\none 12\nnonsense\n", "x".repeat(9000));
        let (files, left_out) = read(text.as_bytes());
        assert_eq!((left_out, read_up_to(2, text.as_bytes()).1), (0, 1), "what is left out is counted");
        assert_eq!(files.keys().copied().collect::<Vec<_>>(), [3, 12]);
        let strings = vec![(16, 5, "$a".to_owned()), (32, 2, "$b".to_owned())];
        assert_eq!(files[&3][0], RuleMatch { rule: "one".to_owned(), strings, end: 34 });
        assert_eq!((files[&3][1].rule.as_str(), files[&12].len()), ("two", 1));
    }
}
