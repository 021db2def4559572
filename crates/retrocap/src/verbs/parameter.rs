//! Flags that are read as the API reads its parameters, so that both accept the same.

use api::value::{Kind, ParameterValue};
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Reads the value of a flag as the API reads the parameter.
pub(crate) fn parameter<T: ParameterValue>(text: &str) -> Result<T, String> {
    T::read(text).ok_or_else(|| format!("it is {}", T::EXPECTED))
}

/// Reads a flag whose values are the words of a parameter. Help and completions list them.
pub(crate) fn word<T>() -> impl TypedValueParser<Value = T>
where
    T: ParameterValue + Clone + Send + Sync + 'static,
{
    let words = match T::KIND {
        Kind::Words(words) => words,
        _ => &[],
    };
    PossibleValuesParser::new(words).try_map(|word| parameter::<T>(&word))
}
