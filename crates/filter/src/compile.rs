//! Compiles expressions, within bounds on their length.

use std::cell::RefCell;
use std::ops::Range;

use super::compiler::{self, Failure};
use super::vm::Program;
use base::packet::LinkType;

/// The maximum length of an expression, in bytes.
///
/// A compilation takes time and memory in proportion to the length: milliseconds for the longest ones.
pub const EXPRESSION_BYTES_MAX: usize = 8 << 10;

/// The maximum number of terms of an expression. Operands of `and` and `or` count, and so do packet loads (`tcp[13]`).
///
/// Every packet of a query is asked each term that the terms before it have not decided.
pub const TERMS_MAX: usize = 256;

/// The maximum number of terms of an expression that is asked of every new session.
pub const SESSION_TERMS_MAX: usize = 64;

/// An expression, a link type, and the result of compiling one for the other.
type Compiled = (String, LinkType, Result<Program, FilterError>);

thread_local! {
    /// Results that this thread has compiled within [`once`]; `None` outside of it.
    static COMPILED: RefCell<Option<Vec<Compiled>>> = const { RefCell::new(None) };
}

/// Runs `work`, and compiles each expression at most once for each link type while it runs.
///
/// All uses of a name within `work` refer to the same address.
pub fn once<T>(work: impl FnOnce() -> T) -> T {
    COMPILED.set(Some(Vec::new()));
    let done = work();
    COMPILED.set(None);
    done
}

/// An error of compiling an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The expression has no meaning, or none for this link type, or no packet can match.
    #[error("cannot compile the filter {}: {message}; see pcap-filter(7)", shown(.expression))]
    Rejected {
        /// The expression.
        expression: String,
        /// The reason, and the place in the expression.
        message: String,
    },
    /// The expression is longer than [`EXPRESSION_BYTES_MAX`].
    #[error(
        "the filter is {bytes} bytes long, at most {EXPRESSION_BYTES_MAX} are possible; use networks and port ranges"
    )]
    TooLong {
        /// The length of the expression, in bytes.
        bytes: usize,
    },
    /// The expression has too many terms.
    #[error(
        "the filter joins {terms} terms with `and` and `or`, at most {most} are possible{}; use networks and port ranges, or \
         several in its place",
        if *most < TERMS_MAX { " where each new session is asked" } else { "" }
    )]
    TooManyTerms {
        /// The number of terms.
        terms: usize,
        /// The maximum number of terms.
        most: usize,
    },
    /// The expression contains a NUL character, at which tcpdump would stop reading.
    #[error("the filter {} contains a NUL character", shown(.expression))]
    Nul {
        /// The expression.
        expression: String,
    },
    /// The expression tests metadata that only the kernel knows, and only while it captures the packet.
    #[error("the filter {} tests the direction or interface, which packets do not carry; use --interface", shown(.expression))]
    Metadata {
        /// The expression.
        expression: String,
    },
}

/// Quotes an expression, and truncates it for a message.
fn shown(expression: &str) -> String {
    const CHARS_MAX: usize = 200;
    if expression.chars().count() <= CHARS_MAX {
        format!("{expression:?}")
    } else {
        format!("{:?}…", expression.chars().take(CHARS_MAX).collect::<String>())
    }
}

/// The compiler of expressions.
#[derive(Clone, Copy, Debug)]
pub struct Filter;

impl Filter {
    /// Compiles an expression for packets of one link type. An empty expression matches every packet.
    ///
    /// # Errors
    ///
    /// [`FilterError::TooLong`], [`FilterError::TooManyTerms`] and [`FilterError::Nul`] before the expression is read.
    /// [`FilterError::Rejected`] when it has no meaning, none for this link type (`ether host` on raw IP), or when no
    /// packet can match, as for tcpdump. [`FilterError::Metadata`] when it tests what packets do not carry.
    pub fn compile(expression: &str, link_type: LinkType) -> Result<Program, FilterError> {
        let expression = expression.trim();
        if expression.is_empty() {
            return Ok(Program::match_all());
        }
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(FilterError::TooLong { bytes: expression.len() });
        }
        if expression.contains('\0') {
            return Err(FilterError::Nul { expression: expression.to_owned() });
        }
        let known = COMPILED.with_borrow(|compiled| {
            let mut compiled = compiled.iter().flatten();
            Some(compiled.find(|(text, of, _)| text == expression && *of == link_type)?.2.clone())
        });
        known.unwrap_or_else(|| {
            limited_terms(expression, TERMS_MAX)?;
            let program = Self::compile_anew(expression, link_type);
            COMPILED.with_borrow_mut(|compiled| {
                if let Some(compiled) = compiled {
                    compiled.push((expression.to_owned(), link_type, program.clone()));
                }
            });
            program
        })
    }

    fn compile_anew(expression: &str, link_type: LinkType) -> Result<Program, FilterError> {
        #[cfg(test)]
        COMPILATIONS.set(COMPILATIONS.get() + 1);
        compiler::compile(expression, dlt(link_type)).map_err(|failure| {
            let expression = expression.to_owned();
            match failure {
                Failure::Metadata => FilterError::Metadata { expression },
                Failure::Refused { message, place } => {
                    let message = match place {
                        Some(place) => format!("{message} ({})", shown_place(&expression, place)),
                        None => message,
                    };
                    FilterError::Rejected { expression, message }
                }
            }
        })
    }
}

/// Shows a place in an expression, and counts its characters from 1.
fn shown_place(expression: &str, place: Range<usize>) -> String {
    let before = expression.get(..place.start).map_or(0, |before| before.chars().count());
    match expression.get(place) {
        None | Some("") => "at the end".to_owned(),
        Some(part) => format!("at {}, character {}", shown(part), before + 1),
    }
}

/// Returns the number of terms of an expression.
///
/// # Errors
///
/// [`FilterError::TooManyTerms`] when the expression has more than `most` terms.
pub fn limited_terms(expression: &str, most: usize) -> Result<usize, FilterError> {
    let terms = terms(expression);
    if terms <= most { Ok(terms) } else { Err(FilterError::TooManyTerms { terms, most }) }
}

/// Estimates the number of terms of an expression. The estimate is never too low.
pub(super) fn terms(expression: &str) -> usize {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let words = expression.split(|c| !is_of_word(c));
    let joined = words.filter(|word| word.eq_ignore_ascii_case("and") || word.eq_ignore_ascii_case("or")).count();
    let signs = ["&&", "||", "["].into_iter().map(|sign| expression.matches(sign).count());
    1 + joined + signs.sum::<usize>()
}

#[cfg(test)]
thread_local! {
    /// The number of compilations on this thread.
    pub(super) static COMPILATIONS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Returns the run-time number (`DLT_*`) that libpcap uses on Linux for the link type of a capture file.
///
/// The two numbers differ where a `DLT_*` number had different meanings on different systems when the file format was
/// standardized (libpcap, `pcap-common.c`, `linktype_to_dlt`).
pub(super) fn dlt(link_type: LinkType) -> u16 {
    match link_type.0 {
        // Raw IP. Files also contain the `DLT_*` numbers of the systems that wrote them.
        12 | 14 | 101 => 12,
        // RFC 1483 ATM.
        100 => 11,
        // SLIP and PPP of BSD/OS.
        102 => 15,
        103 => 16,
        // Classical IP over ATM on Linux.
        106 => 19,
        number => number,
    }
}
