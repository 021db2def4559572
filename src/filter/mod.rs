//! tcpdump expressions.
use crate::packet::LinkType;
#[derive(Debug)]
pub struct FilterSet;
impl FilterSet { pub fn matches(&mut self, _l: LinkType, _d: &[u8], _o: u32) -> bool { true } }
