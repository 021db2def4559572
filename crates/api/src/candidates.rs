//! The body of `POST /v1/hunt`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ParameterError;
use super::parameters::{Clock, PacketQuery, request};
use super::problem::Problem;
use super::question::SelectionQuestion;
use hunt::narrow::{CandidateQuery, LITERALS_BYTES_MAX};
use hunt::patterns::unhex;

/// What sessions may contain. A session is sent if it may contain one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Candidates")]
pub struct CandidateList {
    /// Bytes in hexadecimal, at least two of each: in the payload of a packet, or across packets of one side.
    pub literals: Vec<String>,
    /// Addresses and networks: of an endpoint, or possibly in an answer of a name server.
    pub addresses: Vec<String>,
    /// Whether objects are searched too: sessions in which an object may not lie in one piece are then sent, whatever they contain.
    pub objects: bool,
}

impl CandidateList {
    /// Bytes of a body at most.
    pub const BODY_BYTES_MAX: u64 = 8 << 20;

    /// Writes what a search is narrowed to.
    pub fn new(query: &CandidateQuery) -> Self {
        let hex = |literal: &Vec<u8>| literal.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            literals: query.literals.iter().map(hex).collect(),
            addresses: query.addresses.clone(),
            objects: query.objects,
        }
    }

    /// Reads which packets to look at, from the query string of a URL.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn selection(query: &str, clock: Clock) -> Result<PacketQuery, ParameterError> {
        Ok(PacketQuery { request: request(SelectionQuestion::read(query)?, clock)?, ..PacketQuery::default() })
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(body: &[u8]) -> Result<CandidateQuery, Problem> {
        let list: Self = serde_json::from_slice(body).map_err(|error| {
            let what = "send {\"literals\": [\"70617373\"], \"addresses\": [\"192.0.2.0/24\"]}";
            Problem::bad_query(format!("cannot read what to look for: {error}; {what}"))
        })?;
        let literals: Option<Vec<_>> = list.literals.iter().map(|hex| unhex(hex)).collect();
        let query =
            literals.map(|literals| CandidateQuery { literals, addresses: list.addresses, objects: list.objects });
        query.filter(|query| query.is_useful() && !query.is_empty()).ok_or_else(|| {
            let most = LITERALS_BYTES_MAX >> 10;
            Problem::bad_query(format!(
                "\"literals\" are two bytes or more in hexadecimal, and {most} KiB in all; name one of them, or an address"
            ))
        })
    }
}
