//! tcpdump expressions: which packets, and which sessions, somebody asks for.
//!
//! This is the only place that knows libpcap. libpcap compiles, so that an expression means what everyone expects of
//! it; the compiled program then runs in our own interpreter ([`vm`]), which is given the packet's original length
//! beside its captured bytes, as `len`, `greater` and `less` need it.
//!
//! Always true: a program is checked when it is loaded, has no loops and cannot panic, so a match costs a bounded time
//! whatever the packet. VLAN tags are looked for in the packet's bytes, where the capture has put them back.
//! Names in an expression (`host printer`) are resolved by the system's resolver, once, when it is compiled; in a recorder, which
//! has shut itself in, that is `/etc/hosts`.
#![forbid(unsafe_code)]

pub mod session;
pub mod vm;

pub use session::{Endpoints, SessionProbe};
pub use vm::{Outcome, Program};

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use base::packet::LinkType;

/// Bytes of an expression at most.
///
/// libpcap recurses over an expression. 65 kB of parentheses overflow a stack of 2 MiB, which nothing can catch; 16 kB of
/// them still pass (libpcap 1.10.3).
pub const EXPRESSION_BYTES_MAX: usize = 8 << 10;

/// Terms of an expression at most: what `and` and `or` put together, and what is loaded from a packet (`tcp[13]`).
///
/// libpcap begins anew for each jump that turns out to be too long for its instruction, so that its time grows with the square of
/// the terms or worse, whatever their length: 1,700 ports in 8 kB (`port 1 or 2 or 3 …`) take it more than 40 s, 256
/// half a second, and the worst of 38 kinds of 256 terms, `portrange`, a second.
pub const TERMS_MAX: usize = 256;

/// Expressions of more terms, or of more than 2 KiB, are compiled without libpcap's optimizer, whose time and
/// memory grow as the square of the length, too: up to a quarter of a second for 64 terms, 5 s and 40 MB for 2 kB. The
/// program is longer then, and says the same of every packet that has the bytes it is asked for.
pub const OPTIMIZED_TERMS_MAX: usize = 64;
const OPTIMIZED_BYTES_MAX: usize = 2 << 10;

/// Expressions from this length on are compiled one at a time, and the others wait, so that those who ask together do not multiply
/// that time and memory.
pub const ALONE_BYTES_MIN: usize = 1 << 9;
static ALONE: Mutex<()> = Mutex::new(());

/// What was compiled for a link type.
type Compiled = (String, LinkType, Result<Program, FilterError>);

thread_local! {
    /// What this thread has compiled within [`once`].
    static COMPILED: RefCell<Option<Vec<Compiled>>> = const { RefCell::new(None) };
}

/// Does some work for which each expression is compiled once for each link type, however often it asks. Compiling a long one
/// takes a good part of a second, and names mean what they mean when the work begins.
pub fn once<T>(work: impl FnOnce() -> T) -> T {
    COMPILED.set(Some(Vec::new()));
    let done = work();
    COMPILED.set(None);
    done
}

/// Link types for which a [`FilterSet`] compiles its expression at once; others when it meets them.
pub const USUAL_LINK_TYPES: [LinkType; 4] =
    [LinkType::ETHERNET, LinkType::RAW, LinkType::LINUX_SLL2, LinkType::LINUX_SLL];

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// libpcap does not accept it; the message is libpcap's.
    #[error("cannot compile the filter {}: {message}; see pcap-filter(7)", shown(.expression))]
    Rejected {
        /// The expression.
        expression: String,
        /// What libpcap says.
        message: String,
    },
    /// The expression is too long.
    #[error(
        "the filter is {bytes} bytes long, at most {EXPRESSION_BYTES_MAX} are possible; use networks and port ranges"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The expression has too many terms.
    #[error(
        "the filter joins {terms} terms with `and` and `or`, at most {most} are possible{}; use networks and port ranges, or \
         several in its place",
        if *most < TERMS_MAX { " where each new session is asked" } else { "" }
    )]
    TooManyTerms {
        /// Their number.
        terms: usize,
        /// How many there may be.
        most: usize,
    },
    /// The expression contains a NUL character, where libpcap would stop to read.
    #[error("the filter {} contains a NUL character", shown(.expression))]
    Nul {
        /// The expression.
        expression: String,
    },
    /// It asks for something that the kernel knows of a packet only while it is captured.
    #[error("the filter {} asks for the direction or interface, which packets do not carry; use --interface", shown(.expression))]
    Metadata {
        /// The expression.
        expression: String,
    },
    /// libpcap made a program that cannot be run safely.
    #[error("cannot run the compiled filter {}: {reason}", shown(.expression))]
    Unsafe {
        /// The expression.
        expression: String,
        /// What is wrong with the program.
        reason: vm::Invalid,
    },
}

/// An expression, quoted and short enough for a message.
fn shown(expression: &str) -> String {
    const CHARS_MAX: usize = 200;
    if expression.chars().count() <= CHARS_MAX {
        format!("{expression:?}")
    } else {
        format!("{:?}…", expression.chars().take(CHARS_MAX).collect::<String>())
    }
}

/// The compiler.
#[derive(Clone, Copy, Debug)]
pub struct Filter;

impl Filter {
    /// Compiles an expression for packets of one link type. An empty expression matches everything.
    ///
    /// # Errors
    ///
    /// When libpcap does not accept the expression, or not for this link type (`ether host` on raw IP); also when no
    /// packet could ever match, as with tcpdump.
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

    fn compile_anew(expression: &str, link_type: LinkType, optimize: bool) -> Result<Program, FilterError> {
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
        let instructions = compiled.get_instructions().iter().map(vm::Raw::from_libpcap);
        let program = match instructions.collect::<Option<Vec<_>>>() {
            Some(raw) => Program::load(&raw),
            None => Err(vm::Invalid::Unreadable),
        };
        program.map_err(|reason| match reason {
            vm::Invalid::Metadata => FilterError::Metadata { expression: expression.to_owned() },
            reason => FilterError::Unsafe { expression: expression.to_owned(), reason },
        })
    }
}

/// How many terms an expression has, if these are no more than `most`.
///
/// # Errors
///
/// [`FilterError::TooManyTerms`] otherwise.
pub fn limited_terms(expression: &str, most: usize) -> Result<usize, FilterError> {
    let terms = terms(expression);
    if terms <= most { Ok(terms) } else { Err(FilterError::TooManyTerms { terms, most }) }
}

/// How many terms an expression has; rather one too many than one too few.
fn terms(expression: &str) -> usize {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let words = expression.split(|c| !is_of_word(c));
    let joined = words.filter(|word| word.eq_ignore_ascii_case("and") || word.eq_ignore_ascii_case("or")).count();
    let signs = ["&&", "||", "["].into_iter().map(|sign| expression.matches(sign).count());
    1 + joined + signs.sum::<usize>()
}

/// What to do about a name that nobody knows: a recorder has shut itself in when it is asked.
fn with_advice(message: String) -> String {
    let Some(rest) = message.strip_prefix("unknown host ").or_else(|| message.strip_prefix("unknown network ")) else {
        return message;
    };
    let name = rest.split('\'').nth(1).filter(|name| !name.is_empty()).unwrap_or("NAME").to_owned();
    format!(
        "{message}; a recorder asks no name server, which would tell others what is looked for, and knows the names in \
         /etc/hosts alone: write the address, which `getent ahosts {name}` tells"
    )
}

#[cfg(test)]
thread_local! {
    /// How often this thread has had libpcap compile something.
    static COMPILATIONS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// The number libpcap uses at run time (`DLT_*`) for a link type of a capture file.
///
/// They differ where a number had different meanings on different systems when files began to be exchanged
/// (libpcap, `pcap-common.c`, `linktype_to_dlt`).
fn dlt(link_type: LinkType) -> i32 {
    const OPENBSD: bool = cfg!(target_os = "openbsd");
    match link_type.0 {
        // Raw IP; files also hold the run-time number of the system that wrote them.
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
        // OpenBSD's packet filter, synchronisation.
        246 if OPENBSD => 18,
        number => i32::from(number),
    }
}

/// An expression for packets of any link type, compiled once for each link type it meets.
#[derive(Clone, Debug)]
pub struct FilterSet {
    expression: String,
    /// `None` for link types for which the expression means nothing.
    programs: Vec<(LinkType, Option<Program>)>,
}

impl FilterSet {
    /// Link types kept compiled; when a capture has more, they take turns in the last place.
    const LINK_TYPES_MAX: usize = 64;

    /// Checks an expression against the [usual link types](USUAL_LINK_TYPES).
    ///
    /// # Errors
    ///
    /// When it can be compiled for none of them; the error is the one for Ethernet.
    pub fn new(expression: &str) -> Result<Self, FilterError> {
        Self::for_link_types(expression, &USUAL_LINK_TYPES)
    }

    /// Checks an expression against the usual link types and these.
    ///
    /// # Errors
    ///
    /// When it can be compiled for none of them; the error is the one for Ethernet.
    pub fn for_link_types(expression: &str, link_types: &[LinkType]) -> Result<Self, FilterError> {
        let mut set = Self { expression: expression.trim().to_owned(), programs: Vec::new() };
        let mut error = None;
        for &link_type in USUAL_LINK_TYPES.iter().chain(link_types) {
            if set.programs.iter().any(|(known, _)| *known == link_type) || set.programs.len() == Self::LINK_TYPES_MAX {
                continue;
            }
            let program = match Filter::compile(&set.expression, link_type) {
                Ok(program) => Some(program),
                // Ethernet is the first.
                Err(why) => {
                    error.get_or_insert(why);
                    None
                }
            };
            set.programs.push((link_type, program));
        }
        match error {
            Some(error) if set.programs.iter().all(|(_, program)| program.is_none()) => Err(error),
            _ => Ok(set),
        }
    }

    /// As [`for_link_types`](Self::for_link_types), but compiled for these alone. The usual ones and those of `others` are
    /// only asked where it means nothing for any of them; one after the other, until it does for one.
    ///
    /// # Errors
    ///
    /// When it can be compiled for none of them; the error is the one for Ethernet.
    pub fn for_these(expression: &str, link_types: &[LinkType], others: &[LinkType]) -> Result<Self, FilterError> {
        let mut set = Self { expression: expression.trim().to_owned(), programs: Vec::new() };
        let mut found = false;
        for &link_type in link_types {
            found |= set.program(link_type).is_some();
        }
        let mut others = USUAL_LINK_TYPES.iter().chain(others);
        if found || others.any(|&link_type| set.program(link_type).is_some()) {
            return Ok(set);
        }
        Err(Filter::compile(&set.expression, LinkType::ETHERNET).err().unwrap_or(FilterError::Rejected {
            expression: set.expression,
            message: "it means nothing for packets of these kinds".to_owned(),
        }))
    }

    /// The expression, without surrounding space.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Whether every packet matches, because the expression is empty.
    pub fn is_match_all(&self) -> bool {
        self.expression.is_empty()
    }

    /// Whether a packet matches.
    ///
    /// libpcap reads the headers of few link types as well as the decoder does. For the others the expression is asked of the
    /// outermost IP packet, unless it asks for the link layer. A packet of a link type that libpcap refuses, and without an IP
    /// packet in it, does not match.
    ///
    /// Compiles, and so allocates, when the link type is met for the first time.
    pub fn matches(&mut self, link_type: LinkType, data: &[u8], original_len: u32) -> bool {
        if !is_native(link_type)
            && let Some(offset) = decode::network_offset(link_type, data)
            && let Some(program) = self.program(LinkType::RAW)
        {
            let before = u32::try_from(offset).unwrap_or(u32::MAX);
            return program.matches(data.get(offset..).unwrap_or_default(), original_len.saturating_sub(before));
        }
        match self.program(link_type) {
            Some(program) => program.matches(data, original_len),
            None => self.matches_endpoints(link_type, data),
        }
    }

    /// Whether a packet that begins with `start` cannot match, whatever comes behind; false where that is not known.
    pub fn rejects_start(&mut self, link_type: LinkType, start: &[u8], original_len: u32) -> bool {
        is_native(link_type)
            && self.program(link_type).is_some_and(|program| program.rejects_start(start, original_len))
    }

    /// Asks the expression of the endpoints alone, for packets whose IP header is gone (exported PDUs).
    fn matches_endpoints(&mut self, link_type: LinkType, data: &[u8]) -> bool {
        let decoded = decode::decode(link_type, data);
        if decoded.network == decode::Network::Link {
            return false;
        }
        let Some(program) = self.program(LinkType::ETHERNET).cloned() else { return false };
        SessionProbe::of(program).ask_one_way(&Endpoints::from(&decoded)) == Outcome::Matches
    }

    /// Whether packets of this link type can match at all.
    pub fn can_ask(&mut self, link_type: LinkType) -> bool {
        self.program(link_type).is_some() || (decode::opens(link_type) && self.program(LinkType::RAW).is_some())
    }

    /// The program for one link type, `None` where the expression means nothing for it.
    pub fn program(&mut self, link_type: LinkType) -> Option<&Program> {
        let known = self.programs.iter().position(|(known, _)| *known == link_type);
        let slot = known.unwrap_or_else(|| {
            let program = Filter::compile(&self.expression, link_type).ok();
            if self.programs.len() == Self::LINK_TYPES_MAX {
                self.programs.pop();
            }
            self.programs.push((link_type, program));
            self.programs.len() - 1
        });
        self.programs.get(slot)?.1.as_ref()
    }
}

/// Whether libpcap looks for IP at the same place as the decoder in packets of a link type.
fn is_native(link_type: LinkType) -> bool {
    const PPP: LinkType = LinkType(9);
    matches!(
        link_type,
        LinkType::ETHERNET
            | LinkType::RAW
            | LinkType::RAW_DLT
            | LinkType::RAW_DLT_OPENBSD
            | LinkType::IPV4
            | LinkType::IPV6
            | LinkType::NULL
            | LinkType::LOOP
            | LinkType::LINUX_SLL
            | LinkType::LINUX_SLL2
            | PPP
    )
}

#[cfg(test)]
mod tests;
