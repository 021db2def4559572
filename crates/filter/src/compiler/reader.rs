//! The tokens that have not been read yet, and what the expression is compiled with.

use super::generator::Generator;
use super::names::Names;
use super::refusal::Refusal;
use super::token::{Placed, Token};

pub(super) struct Reader<'a> {
    tokens: Vec<Placed<'a>>,
    pub(super) at: usize,
    end: usize,
    pub(super) generator: Generator,
    pub(super) names: Names,
}

impl<'a> Reader<'a> {
    /// Reads the tokens of an expression of `end` bytes.
    pub(super) fn new(tokens: Vec<Placed<'a>>, end: usize, generator: Generator) -> Self {
        Self { tokens, at: 0, end, generator, names: Names::default() }
    }

    pub(super) fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at).map(|placed| &placed.token)
    }

    pub(super) fn take(&mut self) -> Option<Token<'a>> {
        let token = self.peek().cloned();
        self.at += usize::from(token.is_some());
        token
    }

    pub(super) fn take_if(&mut self, token: &Token<'_>) -> bool {
        let is = self.peek() == Some(token);
        self.at += usize::from(is);
        is
    }

    /// Takes a number if one follows.
    pub(super) fn take_number(&mut self) -> Option<u32> {
        let Some(&Token::Number(number)) = self.peek() else { return None };
        self.at += 1;
        Some(number)
    }

    pub(super) fn expect_number(&mut self) -> Result<u32, Refusal> {
        match self.take_number() {
            Some(number) => Ok(number),
            None => self.unexpected("a number must stand here"),
        }
    }

    /// Refuses the next token.
    pub(super) fn unexpected<T>(&self, message: &'static str) -> Result<T, Refusal> {
        let place = self.tokens.get(self.at).map_or(self.end..self.end, |placed| placed.place.clone());
        Err(Refusal { message: format!("syntax error: {message}").into(), place: Some(place) })
    }

    /// The place of what was taken last.
    pub(super) fn place_before(&self) -> std::ops::Range<usize> {
        let last = self.tokens.get(self.at.saturating_sub(1));
        last.map_or(self.end..self.end, |placed| placed.place.clone())
    }
}
