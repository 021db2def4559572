//! Arithmetic: loads, constants and operations, and their comparison.

use super::condition::{Compare, Condition};
use super::generator::{Arithmetic, From, Generator, Width, at_x};
use super::link_type::number;
use super::payload_type::ether;
use super::qualifier::Protocol;
use super::refusal::{Refusal, refuse};
use crate::vm::{Instruction, Operand};

/// A binary operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

/// A comparison. The flag says whether its result is negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) compare: Compare,
    pub(super) negated: bool,
}

impl Operation {
    pub(super) fn by(self, operand: Operand) -> Instruction {
        match self {
            Self::Add => Instruction::Add(operand),
            Self::Subtract => Instruction::Subtract(operand),
            Self::Multiply => Instruction::Multiply(operand),
            Self::Divide => Instruction::Divide(operand),
            Self::Modulo => Instruction::Modulo(operand),
            Self::And => Instruction::And(operand),
            Self::Or => Instruction::Or(operand),
            Self::Xor => Instruction::Xor(operand),
            Self::ShiftLeft => Instruction::ShiftLeft(operand),
            Self::ShiftRight => Instruction::ShiftRight(operand),
        }
    }
}

impl Arithmetic {
    fn to_a(&self) -> Instruction {
        Instruction::LoadMemory(self.register)
    }

    fn to_x(&self) -> Instruction {
        Instruction::LoadXMemory(self.register)
    }

    /// The constant that the computation begins with.
    fn begins_with_constant(&self) -> Option<u32> {
        match self.steps.first() {
            Some(Instruction::LoadConstant(value)) => Some(*value),
            _ => None,
        }
    }
}

impl Generator {
    pub(super) fn number(&mut self, value: u32) -> Result<Arithmetic, Refusal> {
        self.leaf(Instruction::LoadConstant(value))
    }

    pub(super) fn length(&mut self) -> Result<Arithmetic, Refusal> {
        self.leaf(Instruction::LoadLen)
    }

    fn leaf(&mut self, load: Instruction) -> Result<Arithmetic, Refusal> {
        let register = self.allocate()?;
        Ok(Arithmetic { steps: vec![load, Instruction::Store(register)], register, requires: None })
    }

    pub(super) fn negate(&mut self, mut of: Arithmetic) -> Arithmetic {
        of.steps.extend([of.to_a(), Instruction::Negate, Instruction::Store(of.register)]);
        of
    }

    pub(super) fn operate(
        &mut self,
        operation: Operation,
        mut left: Arithmetic,
        right: Arithmetic,
    ) -> Result<Arithmetic, Refusal> {
        match (operation, right.begins_with_constant()) {
            (Operation::Divide, Some(0)) => return refuse("this divides by zero"),
            (Operation::Modulo, Some(0)) => return refuse("this is a modulus by zero"),
            (Operation::ShiftLeft | Operation::ShiftRight, Some(32..)) => {
                return refuse("this shifts by more than 31 bits");
            }
            _ => {}
        }
        let (to_x, to_a) = (right.to_x(), left.to_a());
        left.steps.extend(right.steps);
        left.steps.extend([to_x, to_a, operation.by(Operand::X)]);
        self.free(left.register);
        self.free(right.register);
        left.register = self.allocate()?;
        left.steps.push(Instruction::Store(left.register));
        // Only a load has requirements, and libpcap keeps those of the left side alone.
        Ok(left)
    }

    /// Loads bytes of a header, as in `tcp[12:2]`.
    pub(super) fn index(&mut self, protocol: Protocol, mut at: Arithmetic, size: u32) -> Result<Arithmetic, Refusal> {
        use Protocol as P;
        let register = self.allocate()?;
        self.free(at.register);
        let width = match size {
            1 => Width::Byte,
            2 => Width::Half,
            4 => Width::Word,
            _ => return refuse("the size must be 1, 2 or 4 bytes"),
        };
        match protocol {
            P::Radio => {
                if ![number::AVS, number::RADIOTAP, number::PRISM].contains(&self.link) {
                    return refuse("packets of this link type have no radio header");
                }
                at.steps.extend([at.to_x(), at_x(width, 0)]);
            }
            P::Link => {
                let varying = self.load_varying(|this| &mut this.link_header)?;
                let constant = self.link_header.constant;
                at.add_load(varying, width, constant);
            }
            P::Ip | P::Arp | P::Rarp | P::Atalk | P::Decnet | P::Sca | P::Lat | P::Moprc | P::Mopdl | P::Ip6 => {
                let varying = self.load_varying(|this| &mut this.payload)?;
                at.add_load(varying, width, self.network_at());
                let is = self.protocol(protocol)?;
                at.requires = Some(self.both(at.requires, is));
            }
            P::Sctp | P::Tcp | P::Udp | P::Icmp | P::Igmp | P::Igrp | P::Pim | P::Vrrp | P::Carp => {
                let length = self.header_length()?;
                at.steps.extend(length);
                at.steps.extend([at.to_a(), Instruction::Add(Operand::X), Instruction::AToX]);
                at.steps.push(at_x(width, self.network_at()));
                let is = self.protocol(protocol)?;
                let first = self.is_first_fragment()?;
                let both = self.and(is, first);
                let all = self.both(at.requires, both);
                let ip = self.protocol(P::Ip)?;
                at.requires = Some(self.and(ip, all));
            }
            P::Icmp6 => {
                let ip6 = self.carries(ether::IPV6)?;
                let before = self.both(at.requires, ip6);
                let is = self.equal(From::Network, 6, Width::Byte, 58)?;
                at.requires = Some(self.and(before, is));
                let varying = self.load_varying(|this| &mut this.payload)?;
                at.add_load(varying, width, self.network_at().wrapping_add(40));
            }
            _ => return refuse("the bytes of this protocol cannot be loaded"),
        }
        at.register = register;
        at.steps.push(Instruction::Store(register));
        Ok(at)
    }

    pub(super) fn relate(&mut self, relation: Relation, left: Arithmetic, right: Arithmetic) -> Condition {
        let (to_x, to_a) = (right.to_x(), left.to_a());
        let mut steps = left.steps;
        steps.extend(right.steps);
        steps.extend([to_x, to_a]);
        let test = if relation.compare == Compare::Equal {
            steps.push(Instruction::Subtract(Operand::X));
            self.test(steps, relation.compare, Operand::Constant(0))
        } else {
            self.test(steps, relation.compare, Operand::X)
        };
        let test = if relation.negated { self.not(test) } else { test };
        self.free(left.register);
        self.free(right.register);
        let requires = match (left.requires, right.requires) {
            (Some(left), Some(right)) => Some(self.and(left, right)),
            (left, right) => left.or(right),
        };
        self.both(requires, test)
    }
}

impl Arithmetic {
    /// Appends a load at the offset that this computes, which counts from a header with a varying part.
    fn add_load(&mut self, varying: Option<Instruction>, width: Width, constant: u32) {
        match varying {
            Some(load) => {
                self.steps.extend([load, self.to_a(), Instruction::Add(Operand::X), Instruction::AToX]);
            }
            None => self.steps.push(self.to_x()),
        }
        self.steps.push(at_x(width, constant));
    }
}
