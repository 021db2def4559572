//! Tests of LLC, ATM, SS7, PF and 802.11, of single bytes, of lengths, and of the direction.

use super::arithmetic::Relation;
use super::condition::{Compare, Condition};
use super::generator::{From, Generator, Width};
use super::link_type::{is_802_11, is_juniper, number};
use super::refusal::{Refusal, refuse};
use crate::vm::{Instruction, Operand};

type Tested = Result<Condition, Refusal>;

/// The kinds of LLC frames: the bits of the control byte that count, and their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Llc {
    Any,
    Information,
    Supervisory,
    Unnumbered,
    SupervisoryOf(u32),
    UnnumberedOf(u32),
}

/// A field of ATM cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtmField {
    Vpi,
    Vci,
}

/// The names of kinds of ATM cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtmKind {
    Lane,
    /// VPI 0 and this VCI: metasignaling, broadcast, segment and end-to-end OAM F4, signaling, ILMI.
    Channel(u32),
    Oam,
    /// Messages that establish or release connections, on VCI 5 or 1.
    Connect(u32),
    MetaConnect,
}

/// The signal units of MTP2. The flag says whether the link has a high speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalUnit {
    FillIn,
    LinkStatus,
    Message,
}

/// A field of MTP3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mtp3Field {
    Sio,
    Opc,
    Dpc,
    Sls,
}

/// A field of the header of OpenBSD's pflog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PfField {
    Rule,
    SubRule,
    Reason,
    Action,
}

const LINUX_OUTGOING: u32 = 4;

impl Generator {
    fn length_is(&mut self, compare: Compare, length: u32) -> Condition {
        self.test(vec![Instruction::LoadLen], compare, Operand::Constant(length))
    }

    /// Tests whether a packet has at least this length.
    pub(super) fn greater(&mut self, length: u32) -> Condition {
        self.length_is(Compare::GreaterEqual, length)
    }

    /// Tests whether a packet has at most this length.
    pub(super) fn less(&mut self, length: u32) -> Condition {
        let longer = self.length_is(Compare::Greater, length);
        self.not(longer)
    }

    /// Tests a byte of the link layer.
    pub(super) fn byte(&mut self, at: u32, operator: char, value: u32) -> Tested {
        let field = (From::Link, at, Width::Byte);
        match operator {
            '=' => self.field(field, u32::MAX, Compare::Equal, value),
            '>' => self.field(field, u32::MAX, Compare::Greater, value),
            '<' => {
                let not_less = self.field(field, u32::MAX, Compare::GreaterEqual, value)?;
                Ok(self.not(not_less))
            }
            _ => {
                // libpcap applies these two to whatever the test before has loaded, and loads nothing itself.
                self.keeps_order = true;
                let operand = Operand::Constant(value);
                let step = if operator == '&' { Instruction::And(operand) } else { Instruction::Or(operand) };
                let zero = self.test(vec![step], Compare::Equal, Operand::Constant(0));
                Ok(self.not(zero))
            }
        }
    }

    pub(super) fn interface(&mut self, index: u32) -> Tested {
        if self.link == number::LINUX_SLL2 {
            return self.equal(From::Link, 4, Width::Word, index);
        }
        self.tests_metadata = true;
        Ok(self.constant(true))
    }

    pub(super) fn direction(&mut self, outbound: bool) -> Tested {
        let (test, is_outbound) = match self.link {
            number::SLIP => {
                let zero = self.number(0)?;
                let byte = self.index(super::qualifier::Protocol::Link, zero, 1)?;
                let zero = self.number(0)?;
                let relation = Relation { compare: Compare::Equal, negated: outbound };
                return Ok(self.relate(relation, byte, zero));
            }
            number::IPNET => return self.equal(From::Link, 2, Width::Half, if outbound { 1 } else { 2 }),
            number::LINUX_SLL => (self.equal(From::Link, 0, Width::Half, LINUX_OUTGOING)?, true),
            number::LINUX_SLL2 => (self.equal(From::Link, 10, Width::Byte, LINUX_OUTGOING)?, true),
            number::PFLOG => return self.equal(From::Link, 60, Width::Byte, if outbound { 2 } else { 1 }),
            number::PPP_PPPD => return self.equal(From::Link, 0, Width::Byte, u32::from(outbound)),
            link if is_juniper(link) => {
                return self.masked(From::Link, (3, Width::Byte), u32::from(!outbound), 1);
            }
            _ => {
                self.tests_metadata = true;
                (self.constant(true), true)
            }
        };
        Ok(if outbound == is_outbound { test } else { self.not(test) })
    }

    pub(super) fn llc(&mut self, kind: Llc) -> Tested {
        let is = match self.link {
            number::ETHERNET => {
                let is_type = self.field((From::Type, 0, Width::Half), u32::MAX, Compare::Greater, 1500)?;
                let length = self.not(is_type);
                let novell = self.equal(From::Llc, 0, Width::Half, 0xffff)?;
                let llc = self.not(novell);
                self.and(length, llc)
            }
            number::SUNATM => self.atm_is_llc()?,
            number::TOKEN_RING | number::FDDI | number::ATM_RFC1483 => self.constant(true),
            link if is_802_11(link) => self.is_802_11_data()?,
            _ => return refuse("packets of this link type have no LLC header"),
        };
        let control = match kind {
            Llc::Any => return Ok(is),
            Llc::Information => {
                let numbered = self.has_bits(From::Llc, 2, Width::Byte, 1)?;
                self.not(numbered)
            }
            Llc::Supervisory => self.masked(From::Llc, (2, Width::Byte), 1, 3)?,
            Llc::Unnumbered => self.masked(From::Llc, (2, Width::Byte), 3, 3)?,
            Llc::SupervisoryOf(value) => self.masked(From::Llc, (2, Width::Byte), value, 0x0f)?,
            Llc::UnnumberedOf(value) => self.masked(From::Llc, (2, Width::Byte), value, 0xef)?,
        };
        Ok(self.and(is, control))
    }

    pub(super) fn atm_field(&mut self, field: AtmField, relation: Relation, value: u32) -> Tested {
        if !self.is_atm {
            return refuse("only packets of raw ATM have a VPI and a VCI");
        }
        let field = match field {
            AtmField::Vpi => (From::Link, 1, Width::Byte),
            AtmField::Vci => (From::Link, 2, Width::Half),
        };
        self.related(field, u32::MAX, relation, value)
    }

    /// libpcap negates the two comparisons by size, and not that for equality: `vpi != 1` means `vpi = 1`.
    fn related(&mut self, field: (From, u32, Width), mask: u32, relation: Relation, value: u32) -> Tested {
        let test = self.field(field, mask, relation.compare, value)?;
        Ok(if relation.negated && relation.compare != Compare::Equal { self.not(test) } else { test })
    }

    fn atm_field_is(&mut self, field: AtmField, value: u32) -> Tested {
        self.atm_field(field, Relation { compare: Compare::Equal, negated: false }, value)
    }

    pub(super) fn atm(&mut self, kind: AtmKind) -> Tested {
        if !self.is_atm {
            return refuse("only packets of raw ATM have this kind of cells");
        }
        match kind {
            AtmKind::Lane => {
                let is = self.masked(From::Link, (0, Width::Byte), 1, 0x0f)?;
                // LAN emulation: a header of two bytes, then Ethernet.
                let constant = 4 + 2;
                let header = super::generator::Offset { varies: false, constant, register: None };
                self.enter_link(number::ETHERNET, header);
                self.type_field.constant = constant + 12;
                self.payload.constant = constant + 14;
                self.network = 0;
                self.network_without_snap = 3;
                Ok(is)
            }
            AtmKind::Channel(vci) => {
                let path = self.atm_field_is(AtmField::Vpi, 0)?;
                let channel = self.atm_field_is(AtmField::Vci, vci)?;
                Ok(self.and(path, channel))
            }
            AtmKind::Oam => {
                let segment = self.atm_field_is(AtmField::Vci, 3)?;
                let end_to_end = self.atm_field_is(AtmField::Vci, 4)?;
                let either = self.or(segment, end_to_end);
                let path = self.atm_field_is(AtmField::Vpi, 0)?;
                Ok(self.and(path, either))
            }
            // Release done, release, connect acknowledge (of signaling only), connect, setup, call proceeding.
            AtmKind::Connect(vci) => self.atm_messages(&[0x5a, 0x4d, 0x0f, 0x07, 0x05, 0x02], vci),
            AtmKind::MetaConnect => self.atm_messages(&[0x5a, 0x4d, 0x07, 0x05, 0x02], 1),
        }
    }

    fn atm_messages(&mut self, kinds: &[u32], vci: u32) -> Tested {
        let mut all: Option<Condition> = None;
        for &kind in kinds {
            let one = self.equal(From::Link, 4 + 5, Width::Byte, kind)?;
            all = Some(match all {
                Some(all) => self.or(all, one),
                None => one,
            });
        }
        let channel = self.atm(AtmKind::Channel(vci))?;
        Ok(match all {
            Some(all) => self.and(channel, all),
            None => channel,
        })
    }

    /// Tests the kind of a signal unit by its length indicator.
    pub(super) fn signal_unit(&mut self, unit: SignalUnit, high_speed: bool) -> Tested {
        let Some(base) = self.mtp2 else { return refuse("only packets of MTP2 have signal units") };
        let (at, width, mask, most) =
            if high_speed { (base + 4, Width::Half, 0xff80, 0x0100) } else { (base + 2, Width::Byte, 0x3f, 2) };
        let field = (From::Packet, at, width);
        match unit {
            SignalUnit::FillIn => self.field(field, mask, Compare::Equal, 0),
            SignalUnit::Message => self.field(field, mask, Compare::Greater, most),
            SignalUnit::LinkStatus => {
                let more = self.field(field, mask, Compare::Greater, most)?;
                let few = self.not(more);
                let some = self.field(field, mask, Compare::Greater, 0)?;
                Ok(self.and(some, few))
            }
        }
    }

    pub(super) fn mtp3(&mut self, field: Mtp3Field, high_speed: bool, relation: Relation, value: u32) -> Tested {
        let Some(base) = self.mtp2 else { return refuse("only packets of SS7 have this field") };
        let base = base + if high_speed { 3 } else { 0 };
        let (name, most) = match field {
            Mtp3Field::Sio => ("sio", 255),
            Mtp3Field::Opc => ("opc", 16_383),
            Mtp3Field::Dpc => ("dpc", 16_383),
            Mtp3Field::Sls => ("sls", 15),
        };
        if value > most {
            return refuse(format!("the {name} {value} is above {most}"));
        }
        // The point codes have 14 bits, which begin in the middle of little-endian bytes.
        let (at, width, mask, value) = match field {
            Mtp3Field::Sio => (3, Width::Byte, u32::MAX, value),
            Mtp3Field::Opc => {
                let value = ((value & 0x3c00) >> 10) + ((value & 0x03fc) << 6) + ((value & 3) << 22);
                (4, Width::Word, 0x00c0_ff0f, value)
            }
            Mtp3Field::Dpc => (4, Width::Word, 0xff3f_0000, ((value & 0xff) << 24) + ((value & 0x3f00) << 8)),
            Mtp3Field::Sls => (7, Width::Byte, 0xf0, value << 4),
        };
        self.related((From::Packet, base + at, width), mask, relation, value)
    }

    fn require_pflog(&self) -> Result<(), Refusal> {
        if self.link == number::PFLOG { Ok(()) } else { refuse("only packets of pflog have this field") }
    }

    /// Tests the name of the interface, or of the ruleset, in the header of pflog.
    pub(super) fn pf_name(&mut self, is_ruleset: bool, name: &str) -> Tested {
        self.require_pflog()?;
        if name.len() > 15 {
            return refuse("the name is longer than the 15 bytes that pflog has for it");
        }
        self.bytes(From::Link, if is_ruleset { 20 } else { 4 }, name.as_bytes())
    }

    pub(super) fn pf_field(&mut self, field: PfField, value: u32) -> Tested {
        self.require_pflog()?;
        let (at, width) = match field {
            PfField::Rule => (36, Width::Word),
            PfField::SubRule => (40, Width::Word),
            PfField::Reason => (3, Width::Byte),
            PfField::Action => (2, Width::Byte),
        };
        self.equal(From::Link, at, width, value)
    }

    /// Tests the type or the direction of an 802.11 frame: `byte` of its frame control.
    pub(super) fn frame_control(&mut self, byte: u32, value: u32, mask: u32) -> Tested {
        if !is_802_11(self.link) || self.link == number::PPI {
            return refuse("only 802.11 frames have a type and a direction");
        }
        self.masked(From::Link, (byte, Width::Byte), value, mask)
    }
}
