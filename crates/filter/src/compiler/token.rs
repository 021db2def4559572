//! Splits an expression into tokens. The longest token wins, and of equally long ones the more special.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::keyword::{Keyword, keyword};
use super::refusal::{Refusal, refuse};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Keyword(Keyword),
    Number(u32),
    /// A name, without a leading backslash.
    Name(&'a str),
    /// Two to four numbers with dots between them.
    Ipv4(&'a str),
    Ipv6(Ipv6Addr),
    Mac([u8; 6]),
    Arcnet(u8),
    And,
    Or,
    Not,
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    Colon,
    Plus,
    Minus,
    Times,
    Slash,
    Percent,
    Ampersand,
    Pipe,
    Caret,
    ShiftLeft,
    ShiftRight,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    Less,
    LessEqual,
}

#[derive(Clone, Debug)]
pub(super) struct Placed<'a> {
    pub(super) token: Token<'a>,
    pub(super) place: Range<usize>,
}

/// Returns all tokens.
pub(super) fn split(expression: &str) -> Result<Vec<Placed<'_>>, Refusal> {
    let bytes = expression.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if matches!(byte, b' ' | b'\r' | b'\n' | b'\t') {
            at += 1;
            continue;
        }
        let rest = expression.get(at..).unwrap_or_default();
        let (token, len) = next(rest);
        let place = at..at + len;
        tokens.push(Placed { token: token.map_err(|refusal| refusal.at(place.clone()))?, place });
        at += len;
    }
    Ok(tokens)
}

fn next(text: &str) -> (Result<Token<'_>, Refusal>, usize) {
    if let Some(symbol) = symbol(text) {
        return symbol;
    }
    let bytes = text.as_bytes();
    let name = name_len(bytes);
    let [mac, number, dotted, v6] = [mac_len(bytes), number_len(bytes), dotted_len(bytes), ipv6_len(bytes)];
    let malformed = malformed_mac_len(bytes);
    let len = name.max(mac).max(number).max(dotted).max(v6).max(malformed);
    let part = text.get(..len).unwrap_or_default();
    let token = match len {
        0 => {
            let len = text.chars().next().map_or(1, char::len_utf8);
            return (refuse("this character means nothing here"), len);
        }
        _ if len == name && keyword(part).is_some() => match keyword(part) {
            Some(Keyword::And) => Ok(Token::And),
            Some(Keyword::Or) => Ok(Token::Or),
            Some(Keyword::Not) => Ok(Token::Not),
            Some(keyword) => Ok(Token::Keyword(keyword)),
            None => refuse("this word means nothing here"),
        },
        _ if len == mac => Ok(Token::Mac(mac_of(part.as_bytes()))),
        _ if len == number => number_of(part).map(Token::Number),
        _ if len == dotted => Ok(Token::Ipv4(part)),
        _ if len == v6 => match part.parse() {
            Ok(address) => Ok(Token::Ipv6(address)),
            Err(_) => refuse(format!("bogus IPv6 address {part}")),
        },
        _ if len == malformed => refuse(format!("bogus ethernet address {part}")),
        _ => match super::keyword::named_number(part) {
            Some(number) => Ok(Token::Number(number)),
            None => Ok(Token::Name(part)),
        },
    };
    (token, len)
}

/// Operators, and what begins with a sign.
fn symbol(text: &str) -> Option<(Result<Token<'_>, Refusal>, usize)> {
    const TWO: [(&str, Token<'static>); 8] = [
        ("&&", Token::And),
        ("||", Token::Or),
        (">=", Token::GreaterEqual),
        ("<=", Token::LessEqual),
        ("!=", Token::NotEqual),
        ("==", Token::Equal),
        ("<<", Token::ShiftLeft),
        (">>", Token::ShiftRight),
    ];
    if let Some((_, token)) = TWO.into_iter().find(|(sign, _)| text.starts_with(sign)) {
        return Some((Ok(token), 2));
    }
    let bytes = text.as_bytes();
    let token = match bytes.first()? {
        b'+' => Token::Plus,
        b'-' => Token::Minus,
        b'*' => Token::Times,
        b'/' => Token::Slash,
        b'%' => Token::Percent,
        b'[' => Token::OpenBracket,
        b']' => Token::CloseBracket,
        b'!' => Token::Not,
        b'<' => Token::Less,
        b'>' => Token::Greater,
        b'(' => Token::Open,
        b')' => Token::Close,
        b'&' => Token::Ampersand,
        b'|' => Token::Pipe,
        b'^' => Token::Caret,
        b'=' => Token::Equal,
        b':' => match ipv6_len(bytes) {
            0 => Token::Colon,
            len => {
                let part = text.get(..len).unwrap_or_default();
                let address = part.parse().map(Token::Ipv6);
                return Some((address.or_else(|_| refuse(format!("bogus IPv6 address {part}"))), len));
            }
        },
        b'$' => {
            let digits = hex_run(bytes, 1).min(2);
            let value = bytes.get(1..1 + digits).unwrap_or_default();
            if digits == 0 {
                return None;
            }
            return Some((Ok(Token::Arcnet(hex(value))), 1 + digits));
        }
        b'\\' => {
            let rest = text.get(1..)?;
            let end = rest.find([' ', '!', '(', ')', '\n', '\t']).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            return Some((Ok(Token::Name(rest.get(..end)?)), 1 + end));
        }
        _ => return None,
    };
    Some((Ok(token), 1))
}

/// Letters and digits, with `-`, `_` and dots inside, and dots at the end.
fn name_len(bytes: &[u8]) -> usize {
    if !bytes.first().is_some_and(u8::is_ascii_alphanumeric) {
        return 0;
    }
    let run = run(bytes, 0, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let cut = bytes.iter().take(run).rposition(|byte| !matches!(byte, b'-' | b'_'));
    cut.map_or(0, |last| last + 1)
}

fn run(bytes: &[u8], from: usize, is_part: impl Fn(u8) -> bool) -> usize {
    bytes.get(from..).unwrap_or_default().iter().take_while(|byte| is_part(**byte)).count()
}

fn hex_run(bytes: &[u8], from: usize) -> usize {
    run(bytes, from, |byte| byte.is_ascii_hexdigit())
}

fn is_at(bytes: &[u8], at: usize, sign: u8) -> bool {
    bytes.get(at) == Some(&sign)
}

/// The value of one or two hexadecimal digits.
fn hex(digits: &[u8]) -> u8 {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or(0);
    digits.iter().fold(0, |all, digit| all << 4 | value(*digit))
}

fn number_at(bytes: &[u8], at: usize) -> usize {
    if is_at(bytes, at, b'0') && (is_at(bytes, at + 1, b'x') || is_at(bytes, at + 1, b'X')) {
        let digits = hex_run(bytes, at + 2);
        if digits > 0 {
            return 2 + digits;
        }
    }
    run(bytes, at, |byte| byte.is_ascii_digit())
}

fn number_len(bytes: &[u8]) -> usize {
    number_at(bytes, 0)
}

/// A number: decimal, hexadecimal after `0x`, or octal after `0`.
fn number_of(text: &str) -> Result<u32, Refusal> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if radix == 8 && digits.contains(['8', '9']) {
        return refuse(format!("the number {text} begins with 0, so it is octal, and has a digit above 7"));
    }
    match u32::from_str_radix(digits, radix) {
        Ok(number) => Ok(number),
        Err(_) => refuse(format!("the number {text} does not fit in 32 bits")),
    }
}

/// Two to four numbers with dots between them.
fn dotted_len(bytes: &[u8]) -> usize {
    let mut end = number_at(bytes, 0);
    let mut numbers = usize::from(end > 0);
    while numbers > 0 && numbers < 4 && is_at(bytes, end, b'.') {
        match number_at(bytes, end + 1) {
            0 => break,
            len => end += 1 + len,
        }
        numbers += 1;
    }
    if numbers < 2 { 0 } else { end }
}

/// Six bytes with `:`, `-` or `.` between them, three pairs with dots, or twelve digits.
fn mac_len(bytes: &[u8]) -> usize {
    let separated = |sign, parts: usize, exact: Option<usize>| {
        let mut end = 0;
        for part in 0..parts {
            if part > 0 {
                if !is_at(bytes, end, sign) {
                    return 0;
                }
                end += 1;
            }
            let run = hex_run(bytes, end);
            let is_last = part + 1 == parts;
            let most = exact.unwrap_or(2);
            if run < exact.unwrap_or(1) || (run > most && !is_last) {
                return 0;
            }
            end += run.min(most);
        }
        end
    };
    let plain = if hex_run(bytes, 0) >= 12 { 12 } else { 0 };
    [separated(b':', 6, None), separated(b'-', 6, None), separated(b'.', 6, None), separated(b'.', 3, Some(4)), plain]
        .into_iter()
        .max()
        .unwrap_or(0)
}

fn mac_of(text: &[u8]) -> [u8; 6] {
    let mut address = [0; 6];
    let mut at = 0;
    for byte in &mut address {
        if text.get(at).is_some_and(|sign| !sign.is_ascii_hexdigit()) {
            at += 1;
        }
        let digits = hex_run(text, at).min(2);
        *byte = hex(text.get(at..at + digits).unwrap_or_default());
        at += digits;
    }
    address
}

/// Bytes with colons, of which the last ends it: no address.
fn malformed_mac_len(bytes: &[u8]) -> usize {
    let (mut at, mut end, mut groups) = (0, 0, 0);
    loop {
        let digits = hex_run(bytes, at);
        let colons = run(bytes, at + digits, |byte| byte == b':');
        if digits == 0 || digits > 2 || colons == 0 {
            break;
        }
        at += digits + colons;
        groups += 1;
        end = at;
    }
    if groups < 2 { 0 } else { end }
}

/// The length of the longest start that has the form of an IPv6 address.
fn ipv6_len(bytes: &[u8]) -> usize {
    let (mut at, mut end, mut groups, mut is_short) = (0, 0, 0, false);
    if bytes.starts_with(b"::") {
        (at, end, is_short) = (2, 2, true);
    }
    loop {
        // The last 32 bits may be written as an IPv4 address.
        if (is_short && groups <= 5) || groups == 6 {
            let dotted = dotted_len(bytes.get(at..).unwrap_or_default());
            let text = bytes.get(at..at + dotted).unwrap_or_default();
            if text.iter().filter(|byte| **byte == b'.').count() == 3 {
                end = end.max(at + dotted);
            }
        }
        let digits = hex_run(bytes, at);
        if digits == 0 || groups == if is_short { 7 } else { 8 } {
            return end;
        }
        groups += 1;
        at += digits.min(4);
        if is_short || groups == 8 {
            end = end.max(at);
        }
        if digits > 4 || !is_at(bytes, at, b':') {
            return end;
        }
        if is_at(bytes, at + 1, b':') {
            if is_short || groups > 7 {
                return end;
            }
            is_short = true;
            at += 2;
            end = end.max(at);
        } else {
            at += 1;
        }
    }
}
