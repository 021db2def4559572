//! One expression for packets of any link type.

use super::compile::{Filter, FilterError};
use super::session::{Endpoints, SessionProbe};
use super::vm::{Outcome, Program};
use base::packet::LinkType;

/// Link types for which [`FilterSet::new`] compiles its expression. Others are compiled when their first packet
/// arrives.
pub const USUAL_LINK_TYPES: [LinkType; 4] =
    [LinkType::ETHERNET, LinkType::RAW, LinkType::LINUX_SLL2, LinkType::LINUX_SLL];

/// An expression for packets of any link type, compiled once for each link type.
#[derive(Clone, Debug)]
pub struct FilterSet {
    expression: String,
    /// `None` for link types for which the expression does not compile.
    programs: Vec<(LinkType, Option<Program>)>,
}

impl FilterSet {
    /// The maximum number of compiled link types. Further link types replace each other in the last slot.
    const LINK_TYPES_MAX: usize = 64;

    /// Compiles an expression for the [usual link types](USUAL_LINK_TYPES).
    ///
    /// # Errors
    ///
    /// The error for Ethernet when the expression compiles for none of them.
    pub fn new(expression: &str) -> Result<Self, FilterError> {
        Self::for_link_types(expression, &USUAL_LINK_TYPES)
    }

    /// Compiles an expression for the usual link types and for `link_types`.
    ///
    /// # Errors
    ///
    /// The error for Ethernet when the expression compiles for none of them.
    pub fn for_link_types(expression: &str, link_types: &[LinkType]) -> Result<Self, FilterError> {
        let mut set = Self { expression: expression.trim().to_owned(), programs: Vec::new() };
        let mut error = None;
        for &link_type in USUAL_LINK_TYPES.iter().chain(link_types) {
            if set.programs.iter().any(|(known, _)| *known == link_type) || set.programs.len() == Self::LINK_TYPES_MAX {
                continue;
            }
            let program = match Filter::compile(&set.expression, link_type) {
                Ok(program) => Some(program),
                // Ethernet is the first link type, so its error is the one that is kept.
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

    /// Compiles an expression for `link_types` only. If it compiles for none of them, tries the usual link types and
    /// then `others`, one at a time, until it compiles for one.
    ///
    /// # Errors
    ///
    /// The error for Ethernet when the expression compiles for none of them.
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

    /// Returns the expression, without leading and trailing whitespace.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Returns whether the expression is empty, so that every packet matches.
    pub fn is_match_all(&self) -> bool {
        self.expression.is_empty()
    }

    /// Returns whether a packet matches.
    ///
    /// libpcap parses the headers of few link types as completely as the decoder does. For the other link types the
    /// expression is applied to the outermost IP packet, unless it tests the link layer. If libpcap rejects the
    /// expression for the link type and the packet contains no IP packet, the expression is applied to the decoded
    /// endpoints (exported PDUs). A packet without endpoints above the link layer does not match.
    ///
    /// The first packet of a link type compiles the expression, and so allocates memory.
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

    /// Returns whether no packet that begins with `start` can match. Returns false when this is not known.
    pub fn rejects_start(&mut self, link_type: LinkType, start: &[u8], original_len: u32) -> bool {
        is_native(link_type)
            && self.program(link_type).is_some_and(|program| program.rejects_start(start, original_len))
    }

    /// Applies the expression to the endpoints alone, for packets without an IP header (exported PDUs).
    fn matches_endpoints(&mut self, link_type: LinkType, data: &[u8]) -> bool {
        let decoded = decode::decode(link_type, data);
        if decoded.network == decode::Network::Link {
            return false;
        }
        let Some(program) = self.program(LinkType::ETHERNET).cloned() else { return false };
        SessionProbe::of(program).ask_one_way(&Endpoints::from(&decoded)) == Outcome::Matches
    }

    /// Returns whether any packet of this link type can match.
    pub fn can_ask(&mut self, link_type: LinkType) -> bool {
        self.program(link_type).is_some() || (decode::opens(link_type) && self.program(LinkType::RAW).is_some())
    }

    /// Returns the program for a link type, or `None` if the expression does not compile for it.
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

/// Returns whether libpcap finds the IP header at the same offset as the decoder in packets of a link type.
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
