//! The state of a compilation: where headers lie in the packet at this place of the expression, and the tests so far.
//!
//! `vlan`, `mpls`, `pppoes` and `geneve` move the headers for all that follows them in the expression, also across
//! `or`. So an expression is compiled from left to right while it is parsed.

use super::condition::{Compare, Condition, Conditions, Test};
use super::link_type::{Layout, number};
use super::refusal::{Refusal, refuse};
use crate::vm::{Instruction, Operand};

/// The registers for intermediate results (`BPF_MEMWORDS`).
const REGISTERS: usize = 16;

/// The offset of a header in the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offset {
    /// Whether a part is only known when the packet is there.
    pub(super) varies: bool,
    /// The known part.
    pub(super) constant: u32,
    /// The register that holds the unknown part, once somebody has asked for it.
    pub(super) register: Option<u8>,
}

/// What an offset counts from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// The first byte of the packet.
    Packet,
    /// The link-layer header.
    Link,
    /// The link-layer header outside of the present one.
    OuterLink,
    /// The payload of the link layer, where an LLC header may lie.
    Llc,
    /// The MPLS label before the present one.
    OuterLabel,
    /// The type field of the link layer.
    Type,
    /// The network header.
    Network,
    /// The network header, if no SNAP header is before it.
    NetworkWithoutSnap,
    /// The transport header over IPv4.
    TransportV4,
    /// The transport header over IPv6 without extension headers.
    TransportV6,
}

/// The width of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Width {
    Byte,
    Half,
    Word,
}

/// An arithmetic expression: the instructions that compute it, the register with the result, and what must hold for
/// the bytes that it loads to exist.
#[derive(Debug)]
pub(super) struct Arithmetic {
    pub(super) steps: Vec<Instruction>,
    pub(super) register: u8,
    pub(super) requires: Option<Condition>,
}

#[derive(Debug)]
pub(super) struct Generator {
    pub(super) conditions: Conditions,
    /// The link type at this place, as libpcap numbers it (`DLT_*`).
    pub(super) link: u16,
    pub(super) outer_link: u16,
    pub(super) outermost_link: u16,
    pub(super) link_header: Offset,
    pub(super) outer_link_header: Offset,
    pub(super) outermost_link_header: Offset,
    pub(super) payload: Offset,
    pub(super) type_field: Offset,
    /// The offset of the network header in the payload, with a SNAP header where the link type has one.
    pub(super) network: u32,
    pub(super) network_without_snap: u32,
    /// The offset of the message unit that MTP2 link types begin with.
    pub(super) mtp2: Option<u32>,
    pub(super) is_atm: bool,
    pub(super) labels: u32,
    pub(super) is_geneve: bool,
    /// Whether the tests share registers or A in a way that only their given order keeps.
    pub(super) keeps_order: bool,
    /// Whether libpcap runs no optimizer for this expression, and so does not notice that nothing can match.
    pub(super) is_not_analyzed: bool,
    /// Whether the expression tests the direction or the interface, which packets do not carry.
    pub(super) tests_metadata: bool,
    registers: [bool; REGISTERS],
    next_register: usize,
}

impl Generator {
    pub(super) fn new(link: u16) -> Result<Self, Refusal> {
        let layout = Layout::of(link)?;
        let header = Offset { varies: layout.link_header_varies, constant: layout.link_header, register: None };
        Ok(Self {
            conditions: Conditions::default(),
            link,
            outer_link: link,
            outermost_link: link,
            link_header: header,
            outer_link_header: header,
            outermost_link_header: header,
            payload: Offset { varies: layout.payload_varies, constant: layout.payload, register: None },
            type_field: Offset { varies: false, constant: layout.type_field, register: None },
            network: layout.network,
            network_without_snap: layout.network_without_snap,
            mtp2: layout.mtp2,
            is_atm: link == number::SUNATM,
            labels: 0,
            is_geneve: false,
            keeps_order: false,
            is_not_analyzed: false,
            tests_metadata: false,
            registers: [false; REGISTERS],
            next_register: 0,
        })
    }

    pub(super) fn allocate(&mut self) -> Result<u8, Refusal> {
        for _ in 0..REGISTERS {
            match self.registers.get_mut(self.next_register) {
                Some(used) if !*used => {
                    *used = true;
                    return Ok(u8::try_from(self.next_register).unwrap_or_default());
                }
                _ => self.next_register = (self.next_register + 1) % REGISTERS,
            }
        }
        refuse("the arithmetic needs more than 16 intermediate results; nest fewer parentheses")
    }

    pub(super) fn free(&mut self, register: u8) {
        if let Some(used) = self.registers.get_mut(usize::from(register)) {
            *used = false;
        }
    }

    pub(super) fn and(&mut self, a: Condition, b: Condition) -> Condition {
        self.conditions.and(a, b)
    }

    pub(super) fn or(&mut self, a: Condition, b: Condition) -> Condition {
        self.conditions.or(a, b)
    }

    pub(super) fn not(&mut self, a: Condition) -> Condition {
        self.conditions.not(a)
    }

    /// Joins conditions with `or`, from left to right.
    pub(super) fn any(&mut self, first: Condition, others: impl IntoIterator<Item = Condition>) -> Condition {
        others.into_iter().fold(first, |all, one| self.or(all, one))
    }

    pub(super) fn test(&mut self, steps: Vec<Instruction>, compare: Compare, with: Operand) -> Condition {
        self.conditions.test(Test { steps, compare, with })
    }

    /// A condition that always has this result.
    pub(super) fn constant(&mut self, result: bool) -> Condition {
        let value = u32::from(!result);
        self.test(vec![Instruction::LoadConstant(value)], Compare::Equal, Operand::Constant(0))
    }

    /// Compares a field of the packet, of which `mask` selects bits.
    pub(super) fn field(
        &mut self,
        (from, offset, width): (From, u32, Width),
        mask: u32,
        compare: Compare,
        value: u32,
    ) -> Result<Condition, Refusal> {
        let mut steps = self.load(from, offset, width)?;
        if mask != u32::MAX {
            steps.push(Instruction::And(Operand::Constant(mask)));
        }
        Ok(self.test(steps, compare, Operand::Constant(value)))
    }

    pub(super) fn equal(&mut self, from: From, offset: u32, width: Width, value: u32) -> Result<Condition, Refusal> {
        self.field((from, offset, width), u32::MAX, Compare::Equal, value)
    }

    pub(super) fn masked(
        &mut self,
        from: From,
        (offset, width): (u32, Width),
        value: u32,
        mask: u32,
    ) -> Result<Condition, Refusal> {
        self.field((from, offset, width), mask, Compare::Equal, value)
    }

    /// Tests whether one of the bits is set.
    pub(super) fn has_bits(&mut self, from: From, offset: u32, width: Width, bits: u32) -> Result<Condition, Refusal> {
        self.field((from, offset, width), u32::MAX, Compare::Bits, bits)
    }

    /// Compares several bytes: words from the last to the first, then what remains at the start.
    pub(super) fn bytes(&mut self, from: From, offset: u32, bytes: &[u8]) -> Result<Condition, Refusal> {
        let mut all: Option<Condition> = None;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (take, width) = match rest.len() {
                4.. => (4, Width::Word),
                2.. => (2, Width::Half),
                _ => (1, Width::Byte),
            };
            let (before, last) = rest.split_at(rest.len() - take);
            let value = last.iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
            let at = offset.wrapping_add(u32::try_from(before.len()).unwrap_or(u32::MAX));
            let one = self.equal(from, at, width, value)?;
            all = Some(match all {
                Some(all) => self.and(all, one),
                None => one,
            });
            rest = before;
        }
        Ok(match all {
            Some(all) => all,
            None => self.constant(true),
        })
    }

    /// The instructions that load a field into A.
    pub(super) fn load(&mut self, from: From, offset: u32, width: Width) -> Result<Vec<Instruction>, Refusal> {
        let in_payload = |offset: u32| offset.wrapping_add(self.network);
        Ok(match from {
            From::Packet => vec![absolute(width, offset)],
            From::Link => self.load_at(|this| &mut this.link_header, offset, width)?,
            From::OuterLink => self.load_at(|this| &mut this.outer_link_header, offset, width)?,
            From::Llc => self.load_at(|this| &mut this.payload, offset, width)?,
            From::Type => self.load_at(|this| &mut this.type_field, offset, width)?,
            From::OuterLabel => {
                let offset = in_payload(offset).wrapping_sub(4);
                self.load_at(|this| &mut this.payload, offset, width)?
            }
            From::Network => {
                let offset = in_payload(offset);
                self.load_at(|this| &mut this.payload, offset, width)?
            }
            From::NetworkWithoutSnap => {
                let offset = offset.wrapping_add(self.network_without_snap);
                self.load_at(|this| &mut this.payload, offset, width)?
            }
            From::TransportV4 => {
                let mut steps = self.header_length()?;
                steps.push(at_x(width, self.network_at().wrapping_add(offset)));
                steps
            }
            From::TransportV6 => {
                let offset = in_payload(offset).wrapping_add(40);
                self.load_at(|this| &mut this.payload, offset, width)?
            }
        })
    }

    /// The known part of the offset of the network header.
    pub(super) fn network_at(&self) -> u32 {
        self.payload.constant.wrapping_add(self.network)
    }

    fn load_at(
        &mut self,
        header: impl Fn(&mut Self) -> &mut Offset,
        offset: u32,
        width: Width,
    ) -> Result<Vec<Instruction>, Refusal> {
        let at = header(self).constant.wrapping_add(offset);
        Ok(match self.load_varying(header)? {
            Some(load) => vec![load, at_x(width, at)],
            None => vec![absolute(width, at)],
        })
    }

    /// The instruction that loads the varying part of an offset into X.
    pub(super) fn load_varying(
        &mut self,
        header: impl Fn(&mut Self) -> &mut Offset,
    ) -> Result<Option<Instruction>, Refusal> {
        let Offset { varies, register, .. } = *header(self);
        if !varies {
            return Ok(None);
        }
        let register = match register {
            Some(register) => register,
            None => self.allocate()?,
        };
        header(self).register = Some(register);
        Ok(Some(Instruction::LoadXMemory(register)))
    }

    /// The instructions that load the length of the IPv4 header into X, with the varying part of its offset.
    pub(super) fn header_length(&mut self) -> Result<Vec<Instruction>, Refusal> {
        let at = self.network_at();
        Ok(match self.load_varying(|this| &mut this.payload)? {
            Some(load) => vec![
                load,
                at_x(Width::Byte, at),
                Instruction::And(Operand::Constant(0xf)),
                Instruction::ShiftLeft(Operand::Constant(2)),
                Instruction::Add(Operand::X),
                Instruction::AToX,
            ],
            None => vec![Instruction::LoadXHeaderLen(at)],
        })
    }

    /// Makes all that follows count from a header inside of the present one.
    pub(super) fn enter_link(&mut self, link: u16, header: Offset) {
        self.outer_link = self.link;
        self.outer_link_header = self.link_header;
        self.link = link;
        self.link_header = header;
        self.is_geneve = false;
    }
}

/// A load at a fixed offset.
pub(super) fn absolute(width: Width, at: u32) -> Instruction {
    match width {
        Width::Byte => Instruction::LoadByte(at),
        Width::Half => Instruction::LoadHalf(at),
        Width::Word => Instruction::LoadWord(at),
    }
}

/// A load at an offset from X.
pub(super) fn at_x(width: Width, at: u32) -> Instruction {
    match width {
        Width::Byte => Instruction::LoadByteAtX(at),
        Width::Half => Instruction::LoadHalfAtX(at),
        Width::Word => Instruction::LoadWordAtX(at),
    }
}
