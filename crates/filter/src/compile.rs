//! Compiles expressions with libpcap, within bounds on their length and their time.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use super::vm::{self, Program};
use base::packet::LinkType;

/// The maximum length of an expression, in bytes.
///
/// libpcap parses expressions recursively. 65 kB of parentheses overflow a stack of 2 MiB, and a stack overflow cannot
/// be caught. 16 kB of parentheses still compile (libpcap 1.10.3).
pub const EXPRESSION_BYTES_MAX: usize = 8 << 10;

/// The maximum number of terms of an expression. Operands of `and` and `or` count, and so do packet loads (`tcp[13]`).
///
/// libpcap restarts code generation for each jump that is too long for its instruction, so its time grows at least
/// with the square of the number of terms, regardless of their length. 1,700 ports in 8 kB (`port 1 or 2 or 3 …`) take
/// more than 40 s. 256 ports take half a second. The slowest of 38 kinds of 256 terms, `portrange`, takes a second.
pub const TERMS_MAX: usize = 256;

/// The maximum number of terms that libpcap's optimizer processes.
///
/// Longer expressions, and those of more than 2 KiB, are compiled without the optimizer. Its time and memory also grow
/// with the square of the length: up to a quarter of a second for 64 terms, and 5 s and 40 MB for 2 kB. The
/// unoptimized program is longer, and gives the same answer for every packet that contains all bytes it loads.
pub const OPTIMIZED_TERMS_MAX: usize = 64;
const OPTIMIZED_BYTES_MAX: usize = 2 << 10;

/// The length in bytes from which expressions are compiled one at a time, so that concurrent requests do not multiply
/// the time and memory of a compilation.
pub const ALONE_BYTES_MIN: usize = 1 << 9;
static ALONE: Mutex<()> = Mutex::new(());

/// An expression, a link type, and the result of compiling one for the other.
type Compiled = (String, LinkType, Result<Program, FilterError>);

thread_local! {
    /// Results that this thread has compiled within [`once`]; `None` outside of it.
    static COMPILED: RefCell<Option<Vec<Compiled>>> = const { RefCell::new(None) };
}

/// Runs `work`, and compiles each expression at most once for each link type while it runs.
///
/// Compiling a long expression takes up to a second. All uses of a name within `work` refer to the same address.
pub fn once<T>(work: impl FnOnce() -> T) -> T {
    COMPILED.set(Some(Vec::new()));
    let done = work();
    COMPILED.set(None);
    done
}

/// An error of compiling an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// libpcap rejects the expression.
    #[error("cannot compile the filter {}: {message}; see pcap-filter(7)", shown(.expression))]
    Rejected {
        /// The expression.
        expression: String,
        /// The error message of libpcap.
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
    /// The expression contains a NUL character, at which libpcap would stop reading.
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
    /// libpcap compiled a program that the interpreter cannot run safely.
    #[error("cannot run the compiled filter {}: {reason}", shown(.expression))]
    Unsafe {
        /// The expression.
        expression: String,
        /// The reason why the program is invalid.
        reason: vm::InvalidProgram,
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
    /// [`FilterError::TooLong`], [`FilterError::TooManyTerms`] and [`FilterError::Nul`] before libpcap is called.
    /// [`FilterError::Rejected`] when libpcap rejects the expression, rejects it for this link type (`ether host` on
    /// raw IP), or finds that no packet can match, as tcpdump does. [`FilterError::Metadata`] and
    /// [`FilterError::Unsafe`] when the interpreter cannot run the compiled program.
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
            let terms = limited_terms(expression, TERMS_MAX)?;
            let optimize = terms <= OPTIMIZED_TERMS_MAX && expression.len() <= OPTIMIZED_BYTES_MAX;
            let program = Self::compile_anew(expression, link_type, optimize);
            COMPILED.with_borrow_mut(|compiled| {
                if let Some(compiled) = compiled {
                    compiled.push((expression.to_owned(), link_type, program.clone()));
                }
            });
            program
        })
    }

    pub(super) fn compile_anew(expression: &str, link_type: LinkType, optimize: bool) -> Result<Program, FilterError> {
        #[cfg(test)]
        COMPILATIONS.set(COMPILATIONS.get() + 1);
        let rejected = |error: pcap::Error| FilterError::Rejected {
            expression: expression.to_owned(),
            message: match error {
                pcap::Error::PcapError(message) => with_advice(message),
                other => other.to_string(),
            },
        };
        let _alone =
            (expression.len() >= ALONE_BYTES_MIN).then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
        let handle = pcap::Capture::dead(pcap::Linktype(dlt(link_type))).map_err(rejected)?;
        let compiled = handle.compile(expression, optimize).map_err(rejected)?;
        let instructions = compiled.get_instructions().iter().map(vm::RawInstruction::from_libpcap);
        let program = match instructions.collect::<Option<Vec<_>>>() {
            Some(raw) => Program::load(&raw),
            None => Err(vm::InvalidProgram::Unreadable),
        };
        program.map_err(|reason| match reason {
            vm::InvalidProgram::Metadata => FilterError::Metadata { expression: expression.to_owned() },
            reason => FilterError::Unsafe { expression: expression.to_owned(), reason },
        })
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

/// Adds advice to the message about an unknown name. A recorder resolves names in its sandbox, without a name server.
fn with_advice(message: String) -> String {
    let Some(rest) = message.strip_prefix("unknown host ").or_else(|| message.strip_prefix("unknown network ")) else {
        return message;
    };
    let name = rest.split('\'').nth(1).filter(|name| !name.is_empty()).unwrap_or("NAME").to_owned();
    format!(
        "{message}; a recorder queries no name server, because that would reveal what you look for, and knows only \
         the names in /etc/hosts: write the address, which `getent ahosts {name}` prints"
    )
}

#[cfg(test)]
thread_local! {
    /// The number of libpcap compilations on this thread.
    pub(super) static COMPILATIONS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Returns the run-time number (`DLT_*`) that libpcap uses for the link type of a capture file.
///
/// The two numbers differ where a `DLT_*` number had different meanings on different systems when the file format was
/// standardized (libpcap, `pcap-common.c`, `linktype_to_dlt`).
fn dlt(link_type: LinkType) -> i32 {
    const OPENBSD: bool = cfg!(target_os = "openbsd");
    match link_type.0 {
        // Raw IP. Files also contain the `DLT_*` numbers of the systems that wrote them.
        12 | 14 | 101 => {
            if OPENBSD {
                14
            } else {
                12
            }
        }
        // RFC 1483 ATM.
        100 => 11,
        // SLIP and PPP of BSD/OS.
        102 => 15,
        103 => 16,
        // Classical IP over ATM on Linux.
        106 => 19,
        // OpenBSD's loopback and IPsec interfaces.
        108 if OPENBSD => 12,
        109 if OPENBSD => 13,
        // OpenBSD's packet filter state synchronization (pfsync).
        246 if OPENBSD => 18,
        number => i32::from(number),
    }
}
