//! Parses an expression, and compiles it on the way.
//!
//! The grammar is that of pcap-filter(7): `and` and `or` have the same precedence and associate to the left, and an
//! address without qualifiers has those of the address before it. What is open lies on a stack of frames in memory, so
//! that no depth of parentheses overflows the stack of the thread.

use super::arithmetic::{Operation, Relation};
use super::condition::Condition;
use super::generator::{Arithmetic, Generator};
use super::keyword::Keyword;
use super::qualifier::{Direction, Kind, Protocol, Qualifier};
use super::reader::Reader;
use super::refusal::{Refusal, refuse};
use super::token::Token;
use super::words::relation;

/// What may stand at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A whole condition.
    Term,
    /// A whole condition, or an address that takes over the qualifiers before it.
    TermOrId,
    /// An address or a number with the qualifiers before it.
    Id,
    Arithmetic,
}

/// What is open.
#[derive(Debug)]
enum Frame {
    Join { left: Condition, is_and: bool, of_ids: bool, qualifier: Option<Qualifier> },
    Not { mode: Mode, qualifier: Option<Qualifier> },
    Parenthesis { mode: Mode, qualifier: Option<Qualifier> },
    Head { qualifier: Qualifier },
    Operation { operation: Operation, left: Arithmetic },
    Negation,
    Relation { relation: Relation, left: Arithmetic },
    Index { protocol: Protocol },
}

/// What has been read.
#[derive(Debug)]
enum Value {
    Number(u32),
    Arithmetic(Arithmetic),
    Id {
        condition: Condition,
        qualifier: Option<Qualifier>,
        /// An address or a number, not a list in parentheses.
        is_single: bool,
        /// A number, which is no list of one.
        is_number: bool,
    },
    Term {
        condition: Condition,
        qualifier: Option<Qualifier>,
    },
}

enum Next {
    Value(Value),
    Operand(Mode),
    Done(Condition),
}

pub(super) struct Parser<'a> {
    reader: Reader<'a>,
    frames: Vec<Frame>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(reader: Reader<'a>) -> Self {
        Self { reader, frames: Vec::new() }
    }

    pub(super) fn into_generator(self) -> Generator {
        self.reader.generator
    }

    /// Parses everything.
    pub(super) fn parse(&mut self) -> Result<Condition, Refusal> {
        let parsed = self.parse_unplaced();
        parsed.map_err(|refusal| refusal.at(self.reader.place_before()))
    }

    fn parse_unplaced(&mut self) -> Result<Condition, Refusal> {
        let mut next = Next::Operand(Mode::Term);
        loop {
            next = match next {
                Next::Operand(mode) => self.operand(mode)?,
                Next::Value(value) => self.reduce(value)?,
                Next::Done(condition) => return Ok(condition),
            };
            if self.reader.generator.conditions.are_too_many() {
                return refuse("the expression has too many tests; use networks and port ranges");
            }
        }
    }

    /// The qualifiers that an address without its own takes over.
    fn inherited(&self) -> Option<Qualifier> {
        match self.frames.last()? {
            Frame::Join { qualifier, .. } | Frame::Not { qualifier, .. } | Frame::Parenthesis { qualifier, .. } => {
                *qualifier
            }
            Frame::Head { qualifier } => Some(*qualifier),
            _ => None,
        }
    }

    /// Reads an operand, or what opens one.
    fn operand(&mut self, mode: Mode) -> Result<Next, Refusal> {
        let qualifier = self.inherited();
        let opened = match self.reader.peek() {
            Some(Token::Not) if mode != Mode::Arithmetic => Some((Frame::Not { mode, qualifier }, mode)),
            Some(Token::Open) => Some((Frame::Parenthesis { mode, qualifier }, mode)),
            Some(Token::Minus) if mode != Mode::Id => Some((Frame::Negation, Mode::Arithmetic)),
            _ => None,
        };
        if let Some((frame, mode)) = opened {
            self.reader.at += 1;
            self.frames.push(frame);
            return Ok(Next::Operand(mode));
        }
        if let Some(number) = self.reader.take_number() {
            return Ok(Next::Value(Value::Number(number)));
        }
        if matches!(mode, Mode::Id | Mode::TermOrId)
            && let Some(condition) = self.reader.address(qualifier)?
        {
            return Ok(Next::Value(Value::Id { condition, qualifier, is_single: true, is_number: false }));
        }
        let Some(&Token::Keyword(word)) = self.reader.peek() else {
            return self.reader.unexpected(match mode {
                Mode::Term => "a word like `host`, `port` or `tcp` must stand here",
                Mode::TermOrId => "an expression must stand here",
                Mode::Id => "a name, an address or a number must stand here",
                Mode::Arithmetic => "a number or bytes like tcp[0] must stand here",
            });
        };
        if mode == Mode::Id {
            return self
                .reader
                .unexpected("a name, an address or a number must stand here; write \\ before a name that is a word");
        }
        self.reader.at += 1;
        match word {
            Keyword::Length => Ok(Next::Value(Value::Arithmetic(self.reader.generator.length()?))),
            Keyword::Protocol(protocol) if self.reader.take_if(&Token::OpenBracket) => {
                self.frames.push(Frame::Index { protocol });
                Ok(Next::Operand(Mode::Arithmetic))
            }
            _ if mode == Mode::Arithmetic => {
                self.reader.at -= 1;
                self.reader.unexpected("a number or bytes like tcp[0] must stand here")
            }
            Keyword::Direction(_) | Keyword::Kind(_) => {
                self.reader.at -= 1;
                self.head(None)
            }
            Keyword::Protocol(protocol) => match self.reader.peek() {
                Some(Token::Keyword(Keyword::Direction(_) | Keyword::Kind(_))) => self.head(Some(protocol)),
                _ => {
                    let condition = self.reader.protocol_term(protocol)?;
                    Ok(Next::Value(Value::Term { condition, qualifier: None }))
                }
            },
            word => {
                let condition = self.reader.word(word)?;
                Ok(Next::Value(Value::Term { condition, qualifier: None }))
            }
        }
    }

    /// Reads a direction and a kind, before which `protocol` stands.
    fn head(&mut self, protocol: Option<Protocol>) -> Result<Next, Refusal> {
        let mut direction = None;
        let mut kind = None;
        if let Some(&Token::Keyword(Keyword::Direction(first))) = self.reader.peek() {
            self.reader.at += 1;
            direction = Some(self.second_direction(first)?);
        }
        if let Some(&Token::Keyword(Keyword::Kind(word))) = self.reader.peek() {
            if direction.is_some() && !matches!(word, Kind::Host | Kind::Net | Kind::Port | Kind::PortRange) {
                return self.reader.unexpected("only host, net, port and portrange have a direction");
            }
            self.reader.at += 1;
            kind = Some(word);
        }
        self.frames.push(Frame::Head { qualifier: Qualifier { protocol, direction, kind } });
        Ok(Next::Operand(Mode::Id))
    }

    /// Reads the second word of `src or dst` and `src and dst`.
    fn second_direction(&mut self, first: Direction) -> Result<Direction, Refusal> {
        let other = match first {
            Direction::Src => Direction::Dst,
            Direction::Dst => Direction::Src,
            single => return Ok(single),
        };
        let both = match self.reader.peek() {
            Some(Token::And) => true,
            Some(Token::Or) => false,
            _ => return Ok(first),
        };
        self.reader.at += 1;
        if !self.reader.take_if(&Token::Keyword(Keyword::Direction(other))) {
            return self.reader.unexpected("the other of src and dst must stand here");
        }
        Ok(if both { Direction::Both } else { Direction::Either })
    }

    /// What may stand where the open frame expects something.
    fn mode(&self) -> Mode {
        match self.frames.last() {
            None => Mode::Term,
            Some(Frame::Join { of_ids: false, .. }) => Mode::TermOrId,
            Some(Frame::Join { .. } | Frame::Head { .. }) => Mode::Id,
            Some(Frame::Not { mode, .. } | Frame::Parenthesis { mode, .. }) => *mode,
            Some(_) => Mode::Arithmetic,
        }
    }

    /// Joins what has been read with what is open.
    fn reduce(&mut self, value: Value) -> Result<Next, Refusal> {
        match value {
            Value::Number(_) | Value::Arithmetic(_) => self.reduce_arithmetic(value),
            Value::Id { condition, qualifier, is_single, is_number } => {
                self.reduce_id(condition, qualifier, is_single, is_number)
            }
            Value::Term { condition, qualifier } => self.reduce_term(condition, qualifier),
        }
    }

    fn arithmetic(&mut self, value: Value) -> Result<Arithmetic, Refusal> {
        match value {
            Value::Arithmetic(arithmetic) => Ok(arithmetic),
            Value::Number(number) => self.reader.generator.number(number),
            _ => self.reader.unexpected("a number must stand before this"),
        }
    }

    fn reduce_arithmetic(&mut self, value: Value) -> Result<Next, Refusal> {
        let mode = self.mode();
        let operation = self.reader.peek().and_then(operation).filter(|_| mode != Mode::Id);
        if let Some(operation) = operation
            && !self.binds_tighter(operation)
        {
            let left = self.arithmetic(value)?;
            self.reader.at += 1;
            self.frames.push(Frame::Operation { operation, left });
            return Ok(Next::Operand(Mode::Arithmetic));
        }
        if matches!(self.frames.last(), Some(Frame::Operation { .. } | Frame::Negation | Frame::Relation { .. })) {
            return self.close_arithmetic(value);
        }
        if let Some(Frame::Index { protocol }) = self.frames.last() {
            let protocol = *protocol;
            let size = if self.reader.take_if(&Token::Colon) { self.reader.expect_number()? } else { 1 };
            if !self.reader.take_if(&Token::CloseBracket) {
                return self.reader.unexpected("a ] must stand here");
            }
            self.frames.pop();
            let at = self.arithmetic(value)?;
            return Ok(Next::Value(Value::Arithmetic(self.reader.generator.index(protocol, at, size)?)));
        }
        if let Some(relation) =
            self.reader.peek().and_then(relation).filter(|_| matches!(mode, Mode::Term | Mode::TermOrId))
        {
            let left = self.arithmetic(value)?;
            self.reader.at += 1;
            self.frames.push(Frame::Relation { relation, left });
            return Ok(Next::Operand(Mode::Arithmetic));
        }
        if matches!(self.frames.last(), Some(Frame::Parenthesis { .. })) && self.reader.take_if(&Token::Close) {
            self.frames.pop();
            return Ok(Next::Value(value));
        }
        match value {
            Value::Number(number) if matches!(mode, Mode::Id | Mode::TermOrId) => {
                let qualifier = self.inherited();
                let condition = self.reader.number_id(number, qualifier)?;
                Ok(Next::Value(Value::Id { condition, qualifier, is_single: false, is_number: true }))
            }
            _ => self.reader.unexpected("a comparison like `> 5` must stand here"),
        }
    }

    /// Whether the open operation is applied before one that follows. Operations that no rule orders, `%` and `^`, are
    /// applied from the right.
    fn binds_tighter(&self, next: Operation) -> bool {
        let open = match self.frames.last() {
            Some(Frame::Operation { operation, .. }) => precedence(*operation),
            Some(Frame::Negation) => Some(u8::MAX),
            _ => return false,
        };
        matches!((open, precedence(next)), (Some(open), Some(next)) if open >= next)
    }

    fn close_arithmetic(&mut self, value: Value) -> Result<Next, Refusal> {
        let right = self.arithmetic(value)?;
        Ok(Next::Value(match self.frames.pop() {
            Some(Frame::Operation { operation, left }) => {
                Value::Arithmetic(self.reader.generator.operate(operation, left, right)?)
            }
            Some(Frame::Negation) => Value::Arithmetic(self.reader.generator.negate(right)),
            Some(Frame::Relation { relation, left }) => {
                Value::Term { condition: self.reader.generator.relate(relation, left, right), qualifier: None }
            }
            _ => Value::Arithmetic(right),
        }))
    }

    /// Takes `and` or `or`. True is `and`.
    fn take_join(&mut self) -> Option<bool> {
        let is_and = match self.reader.peek()? {
            Token::And => true,
            Token::Or => false,
            _ => return None,
        };
        self.reader.at += 1;
        Some(is_and)
    }

    fn join(&mut self, left: Condition, is_and: bool, right: Condition) -> Condition {
        if is_and { self.reader.generator.and(left, right) } else { self.reader.generator.or(left, right) }
    }

    fn reduce_id(
        &mut self,
        condition: Condition,
        qualifier: Option<Qualifier>,
        is_single: bool,
        is_number: bool,
    ) -> Result<Next, Refusal> {
        match self.frames.pop() {
            Some(Frame::Head { .. }) => Ok(Next::Value(Value::Term { condition, qualifier })),
            Some(Frame::Not { .. }) => {
                let condition = self.reader.generator.not(condition);
                Ok(Next::Value(Value::Id { condition, qualifier, is_single: true, is_number: false }))
            }
            Some(Frame::Join { left, is_and, of_ids, .. }) => {
                let condition = self.join(left, is_and, condition);
                Ok(Next::Value(if of_ids {
                    Value::Id { condition, qualifier, is_single: true, is_number: false }
                } else {
                    Value::Term { condition, qualifier }
                }))
            }
            Some(frame @ Frame::Parenthesis { .. }) if is_single || is_number => {
                if is_single && self.reader.take_if(&Token::Close) {
                    return Ok(Next::Value(Value::Id { condition, qualifier, is_single: false, is_number: false }));
                }
                self.frames.push(frame);
                match self.take_join() {
                    Some(is_and) => {
                        self.frames.push(Frame::Join { left: condition, is_and, of_ids: true, qualifier });
                        Ok(Next::Operand(Mode::Id))
                    }
                    None => self.reader.unexpected("`and`, `or` or `)` must stand here"),
                }
            }
            _ => self.reader.unexpected("parentheses around a list in parentheses mean nothing"),
        }
    }

    fn reduce_term(&mut self, condition: Condition, qualifier: Option<Qualifier>) -> Result<Next, Refusal> {
        match self.frames.pop() {
            Some(Frame::Not { .. }) => {
                let condition = self.reader.generator.not(condition);
                Ok(Next::Value(Value::Term { condition, qualifier }))
            }
            Some(Frame::Join { left, is_and, .. }) => {
                let condition = self.join(left, is_and, condition);
                Ok(Next::Value(Value::Term { condition, qualifier }))
            }
            Some(Frame::Parenthesis { qualifier: outer, .. }) if self.reader.take_if(&Token::Close) => {
                Ok(Next::Value(Value::Term { condition, qualifier: outer }))
            }
            None if self.reader.peek().is_none() => Ok(Next::Done(condition)),
            frame => {
                self.frames.extend(frame);
                match self.take_join() {
                    Some(is_and) => {
                        self.frames.push(Frame::Join { left: condition, is_and, of_ids: false, qualifier });
                        Ok(Next::Operand(Mode::TermOrId))
                    }
                    None => self.reader.unexpected("`and` or `or` must stand here"),
                }
            }
        }
    }
}

fn operation(token: &Token<'_>) -> Option<Operation> {
    Some(match token {
        Token::Plus => Operation::Add,
        Token::Minus => Operation::Subtract,
        Token::Times => Operation::Multiply,
        Token::Slash => Operation::Divide,
        Token::Percent => Operation::Modulo,
        Token::Ampersand => Operation::And,
        Token::Pipe => Operation::Or,
        Token::Caret => Operation::Xor,
        Token::ShiftLeft => Operation::ShiftLeft,
        Token::ShiftRight => Operation::ShiftRight,
        _ => return None,
    })
}

fn precedence(operation: Operation) -> Option<u8> {
    match operation {
        Operation::Or => Some(1),
        Operation::And => Some(2),
        Operation::ShiftLeft | Operation::ShiftRight => Some(3),
        Operation::Add | Operation::Subtract => Some(4),
        Operation::Multiply | Operation::Divide => Some(5),
        Operation::Modulo | Operation::Xor => None,
    }
}
