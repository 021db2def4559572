//! The meaning of the query strings that the web page sends, as [`parameters`](super::parameters) has it for others.

use super::error::{ParameterError, wrong};
use super::parameters::{Clock, request};
use super::question::{LinesQuestion, MessagesQuestion, SelectionQuestion, StreamsQuestion, TimelineQuestion};
use query::Request;
use query::timeline::{BUCKETS_DEFAULT, BUCKETS_MAX};

/// Packets or messages of an answer in lines.
pub const LINES_MAX: u64 = 10_000;
/// The same by default.
const LINES_DEFAULT: u64 = 1000;
/// Bytes of an answer in streams.
pub const STREAM_BYTES_MAX: u64 = 4 << 20;
/// The same by default.
const STREAM_BYTES_DEFAULT: u64 = 256 << 10;

/// A selection and an amount: spans, packets or bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AmountQuery {
    /// Which sessions or packets.
    pub request: Request,
    /// How many.
    pub amount: u64,
}

impl AmountQuery {
    /// Reads the query string of `/v1/timeline`.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn spans(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        let TimelineQuestion { selection, rules } = TimelineQuestion::read(query)?;
        let expected = "a whole number from 1 to 4096";
        Self::new(selection, ("spans", rules.spans, expected), (BUCKETS_DEFAULT, BUCKETS_MAX), clock)
    }

    /// Reads the query string of `/v1/lines`.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn lines(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        let LinesQuestion { selection, rules } = LinesQuestion::read(query)?;
        let expected = "a whole number from 1 to 10000";
        let query = Self::new(selection, ("count", rules.count, expected), (LINES_DEFAULT, LINES_MAX), clock)?;
        Ok(Self { request: Request { limit: Some(query.amount), ..query.request }, ..query })
    }

    /// Reads the query string of `/v1/messages`.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn messages(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        let MessagesQuestion { selection, rules } = MessagesQuestion::read(query)?;
        let expected = "a whole number from 1 to 10000";
        Self::new(selection, ("count", rules.count, expected), (LINES_DEFAULT, LINES_MAX), clock)
    }

    /// Reads the query string of `/v1/streams`.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn bytes(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        let StreamsQuestion { selection, rules } = StreamsQuestion::read(query)?;
        let expected = "a whole number from 1 to 4194304";
        Self::new(selection, ("bytes", rules.bytes, expected), (STREAM_BYTES_DEFAULT, STREAM_BYTES_MAX), clock)
    }

    fn new(
        selection: SelectionQuestion,
        (key, asked, expected): (&'static str, Option<u64>, &'static str),
        (default, most): (u64, u64),
        clock: Clock,
    ) -> Result<Self, ParameterError> {
        let amount = asked.unwrap_or(default);
        if amount == 0 || amount > most {
            return Err(wrong(key, &amount.to_string(), expected));
        }
        Ok(Self { request: request(selection, clock)?, amount })
    }
}

/// Reads a query string that is a selection alone.
///
/// # Errors
///
/// Says what is wrong and what would be right.
pub fn selection(query: &str, clock: Clock) -> Result<Request, ParameterError> {
    request(SelectionQuestion::read(query)?, clock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::time::Timestamp;

    #[test]
    fn amounts_have_defaults_and_limits() {
        let clock = Clock { now: Timestamp::from_unix(1_000_000, 0), newest: None };
        assert_eq!(AmountQuery::spans("", clock).unwrap().amount, 600);
        assert_eq!(AmountQuery::lines("count=7&since=1h", clock).unwrap().request.limit, Some(7));
        assert_eq!(AmountQuery::bytes("bytes=4194304", clock).unwrap().amount, 4 << 20);
        for (read, says) in [
            (AmountQuery::spans("spans=4097", clock), "from 1 to 4096"),
            (AmountQuery::lines("count=0", clock), "from 1 to 10000"),
            (AmountQuery::bytes("count=3", clock), "there is no parameter"),
        ] {
            let error = read.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(selection("filter=tcp&since=1h", clock).is_ok() && selection("spans=3", clock).is_err());
    }
}
