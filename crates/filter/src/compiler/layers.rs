//! Layers that move the headers for all that follows them: VLAN, MPLS, PPPoE and Geneve.

use super::condition::{Compare, Condition};
use super::generator::{From, Generator, Offset, Width};
use super::link_type::{is_802_11, is_ethernet, is_hdlc, number};
use super::payload_type::ether;
use super::refusal::{Refusal, refuse};
use crate::vm::{Instruction, Operand};

type Tested = Result<Condition, Refusal>;

const PPP_MPLS: u32 = 0x0281;

impl Generator {
    pub(super) fn vlan(&mut self, id: Option<u32>) -> Tested {
        if self.labels > 0 {
            return refuse("`vlan` cannot follow `mpls`");
        }
        if !is_ethernet(self.link) && (!is_802_11(self.link) || self.link == number::PPI) {
            return refuse("packets of this link type have no VLAN tags");
        }
        let kinds = [ether::VLAN, ether::PROVIDER_VLAN, ether::OLD_PROVIDER_VLAN];
        let [customer, provider, old] = kinds.map(|kind| self.carries(kind));
        let mut tagged = self.or(customer?, provider?);
        let old = old?;
        tagged = self.or(tagged, old);
        if let Some(id) = id {
            limit("VLAN id", id, 0xfff)?;
            let is = self.masked(From::Network, (0, Width::Half), id, 0xfff)?;
            tagged = self.and(tagged, is);
        }
        self.payload.constant = self.payload.constant.wrapping_add(4);
        self.type_field.constant = self.type_field.constant.wrapping_add(4);
        Ok(tagged)
    }

    pub(super) fn mpls(&mut self, label: Option<u32>) -> Tested {
        let mut is = if self.labels > 0 {
            // The label before is not the last one.
            self.masked(From::OuterLabel, (2, Width::Byte), 0, 1)?
        } else if is_hdlc(self.link) || is_ethernet(self.link) {
            self.carries(ether::MPLS)?
        } else if self.link == number::PPP {
            self.carries(PPP_MPLS)?
        } else {
            return refuse("packets of this link type have no MPLS labels");
        };
        if let Some(label) = label {
            limit("MPLS label", label, 0xf_ffff)?;
            let this = self.masked(From::Network, (0, Width::Word), label << 12, 0xffff_f000)?;
            is = self.and(is, this);
        }
        self.network_without_snap = self.network_without_snap.wrapping_add(4);
        self.network = self.network.wrapping_add(4);
        self.labels += 1;
        Ok(is)
    }

    pub(super) fn pppoe_discovery(&mut self) -> Tested {
        self.carries(ether::PPPOE_DISCOVERY)
    }

    pub(super) fn pppoe_session(&mut self, session: Option<u32>) -> Tested {
        let mut is = self.carries(ether::PPPOE_SESSION)?;
        if let Some(session) = session {
            limit("PPPoE session", session, 0xffff)?;
            let this = self.masked(From::Network, (0, Width::Word), session, 0xffff)?;
            is = self.and(is, this);
        }
        // The PPPoE header has six bytes.
        let constant = self.network_at().wrapping_add(6);
        self.enter_link(number::PPP, Offset { constant, ..self.payload });
        self.type_field = self.link_header;
        self.payload.constant = constant.wrapping_add(2);
        self.network = 0;
        self.network_without_snap = 0;
        Ok(is)
    }

    pub(super) fn geneve(&mut self, network: Option<u32>) -> Tested {
        let over_v4 = self.geneve_over_v4(network)?;
        let over_v6 = self.geneve_over_v6(network)?;
        let is = self.or(over_v4, over_v6);
        let mut steps = self.geneve_offsets()?;
        steps.push(Instruction::LoadConstant(0));
        let offsets = self.test(steps, Compare::Equal, Operand::Constant(0));
        self.is_geneve = true;
        self.keeps_order = true;
        self.is_not_analyzed = true;
        Ok(self.and(is, offsets))
    }

    fn geneve_check(&mut self, over_v4: bool, network: Option<u32>) -> Tested {
        let from = if over_v4 { From::TransportV4 } else { From::TransportV6 };
        let to_port = self.has_geneve_port(over_v4)?;
        let version = self.masked(from, (8, Width::Byte), 0, 0xc0)?;
        let mut is = self.and(to_port, version);
        if let Some(network) = network {
            limit("Geneve network", network, 0xff_ffff)?;
            let this = self.masked(from, (12, Width::Word), network << 8, 0xffff_ff00)?;
            is = self.and(is, this);
        }
        Ok(is)
    }

    /// The last test leaves the length of the headers before UDP in A and X.
    fn geneve_over_v4(&mut self, network: Option<u32>) -> Tested {
        let is = self.geneve_check(true, network)?;
        let mut steps = self.header_length()?;
        steps.push(Instruction::XToA);
        let leave = self.test(steps, Compare::Equal, Operand::X);
        Ok(self.and(is, leave))
    }

    fn geneve_over_v6(&mut self, network: Option<u32>) -> Tested {
        let is = self.geneve_check(false, network)?;
        let mut steps = Vec::new();
        let varying = self.load_varying(|this| &mut this.payload)?;
        steps.extend(varying);
        steps.push(Instruction::LoadConstant(40));
        if varying.is_some() {
            steps.push(Instruction::Add(Operand::X));
        }
        steps.push(Instruction::AToX);
        let leave = self.test(steps, Compare::Equal, Operand::X);
        Ok(self.and(is, leave))
    }

    /// Computes where the headers inside lie, from what the last test left in A.
    fn geneve_offsets(&mut self) -> Result<Vec<Instruction>, Refusal> {
        use Instruction as I;
        let constant = Operand::Constant;
        let type_field = self.allocate()?;
        let link_header = self.allocate()?;
        let payload = self.allocate()?;
        let steps = vec![
            // X is the start of the Geneve header; its type lies two bytes further.
            I::Add(constant(self.network_at().wrapping_add(8))),
            I::AToX,
            I::Add(constant(2)),
            I::Store(type_field),
            // Its options are counted in words.
            I::LoadByteAtX(0),
            I::And(constant(0x3f)),
            I::Multiply(constant(4)),
            I::Add(constant(8)),
            I::Add(Operand::X),
            I::Store(link_header),
            I::LoadHalfAtX(2),
            I::LoadXMemory(link_header),
            // Without Ethernet, the payload begins where Ethernet would.
            I::IfEqual(ether::BRIDGED, 0, 5),
            I::XToA,
            I::Add(constant(12)),
            I::Store(type_field),
            I::Add(constant(2)),
            I::AToX,
            I::StoreX(payload),
        ];
        let varying = |register| Offset { varies: true, constant: 0, register: Some(register) };
        self.type_field = varying(type_field);
        self.enter_link(number::ETHERNET, varying(link_header));
        self.payload = varying(payload);
        self.network = 0;
        Ok(steps)
    }

    /// The instructions that compute the varying offsets of the link type. They run first.
    pub(super) fn prologue(&mut self) -> Result<Vec<Instruction>, Refusal> {
        use Instruction as I;
        if self.payload.register.is_some() && self.link_header.varies && self.link_header.register.is_none() {
            self.link_header.register = Some(self.allocate()?);
        }
        let mut steps = Vec::new();
        self.is_not_analyzed |= self.outermost_link == number::PRISM;
        if let Some(register) = self.link_header.register {
            match self.outermost_link {
                number::PRISM => {
                    // A header that begins like AVS has its length in bytes 4 to 7, a Prism header has 144 bytes.
                    steps.extend([
                        I::LoadWord(0),
                        I::And(Operand::Constant(0xffff_f000)),
                        I::IfEqual(0x8021_1000, 0, 2),
                        I::LoadWord(4),
                        I::Jump(1),
                        I::LoadConstant(144),
                    ]);
                }
                number::AVS => steps.push(I::LoadWord(4)),
                // A little-endian length.
                number::RADIOTAP | number::PPI => steps.extend([
                    I::LoadByte(3),
                    I::ShiftLeft(Operand::Constant(8)),
                    I::AToX,
                    I::LoadByte(2),
                    I::Or(Operand::X),
                ]),
                _ => {}
            }
            if !steps.is_empty() {
                steps.extend([I::Store(register), I::AToX]);
            }
        }
        let Some(payload) = self.payload.register else { return Ok(steps) };
        if is_802_11(self.outermost_link) {
            self.is_not_analyzed = true;
            if steps.is_empty() {
                steps.push(I::LoadXConstant(self.outermost_link_header.constant));
            }
            steps.extend(header_length_802_11(payload, self.link == number::RADIOTAP));
        } else if self.outermost_link == number::PFLOG {
            steps.extend([
                I::LoadByte(0),
                I::Add(Operand::Constant(3)),
                I::And(Operand::Constant(0xffff_fffc)),
                I::Store(payload),
                I::AToX,
            ]);
        }
        Ok(steps)
    }

    /// Tests whether a PPI packet has an 802.11 header. No other link types are supported in PPI.
    pub(super) fn ppi_check(&mut self) -> Option<Condition> {
        (self.link == number::PPI).then(|| {
            let little_endian = u32::from(number::IEEE802_11).swap_bytes();
            self.test(vec![Instruction::LoadWord(4)], Compare::Equal, Operand::Constant(little_endian))
        })
    }
}

/// Stores the offset behind an 802.11 header that begins at X: 24 bytes, 26 for data with quality of service, and
/// padded to words if the radiotap header says so.
fn header_length_802_11(payload: u8, has_radiotap: bool) -> Vec<Instruction> {
    use Instruction as I;
    let constant = Operand::Constant;
    let rest: &[Instruction] = if has_radiotap {
        &[
            I::LoadWord(4),
            // Has the header flags, are there no further bits that say what it has, and does a time precede the flags?
            I::IfBits(0x0200_0000, 0, 10),
            I::IfBits(0x0000_0080, 9, 0),
            I::IfBits(0x0100_0000, 0, 2),
            I::LoadByte(16),
            I::IfBits(0x20, 2, 6),
            I::LoadByte(8),
            I::IfBits(0x20, 0, 4),
            I::LoadMemory(payload),
            I::Add(constant(3)),
            I::And(constant(0xffff_fffc)),
            I::Store(payload),
        ]
    } else {
        &[]
    };
    let behind = u8::try_from(rest.len()).unwrap_or(u8::MAX);
    let mut steps = vec![
        I::XToA,
        I::Add(constant(24)),
        I::Store(payload),
        I::LoadByteAtX(0),
        I::IfBits(0x08, 0, 5 + behind),
        I::IfBits(0x04, 4 + behind, 0),
        I::IfBits(0x80, 0, 3),
        I::LoadMemory(payload),
        I::Add(constant(2)),
        I::Store(payload),
    ];
    steps.extend_from_slice(rest);
    steps
}

fn limit(what: &str, value: u32, most: u32) -> Result<(), Refusal> {
    if value <= most { Ok(()) } else { refuse(format!("the {what} {value} is above {most}")) }
}
