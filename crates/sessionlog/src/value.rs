//! The value of a row in a column.

use std::borrow::Cow;

use base::foreign::Foreign;

/// The value of a row in a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Unknown, or not applicable.
    None,
    /// A text.
    Text(Cow<'a, str>),
    /// A number, or a time.
    Whole(i64),
}

impl Value<'_> {
    pub(crate) fn whole(number: impl TryInto<i64>) -> Self {
        number.try_into().map_or(Self::None, Value::Whole)
    }
}

impl From<Value<'_>> for Option<String> {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Text(text) => Some(text.into_owned()),
            _ => None,
        }
    }
}

impl From<Value<'_>> for Option<Foreign> {
    fn from(value: Value<'_>) -> Self {
        Option::<String>::from(value).map(Foreign::from)
    }
}

impl From<Value<'_>> for Option<i64> {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Whole(number) => Some(number),
            _ => None,
        }
    }
}
