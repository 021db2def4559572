//! Why an expression cannot be compiled.

use std::borrow::Cow;
use std::ops::Range;

/// Why an expression is refused, and where.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) message: Cow<'static, str>,
    /// The bytes of the expression that cause it, once the parser has added them.
    pub(super) place: Option<Range<usize>>,
}

pub(super) fn refuse<T>(message: impl Into<Cow<'static, str>>) -> Result<T, Refusal> {
    Err(Refusal { message: message.into(), place: None })
}

impl Refusal {
    /// Adds the place, unless a closer one is known.
    pub(super) fn at(mut self, place: Range<usize>) -> Self {
        self.place.get_or_insert(place);
        self
    }
}
