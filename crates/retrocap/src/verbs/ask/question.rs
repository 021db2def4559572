//! What the recorders are asked, from the words of a verb.

use clap::{Parser, Subcommand};
use jiff::tz::TimeZone;

use crate::fleet::exchange::AnswerKind;
use crate::options::Common;
use crate::verbs::flows::Flows;
use crate::verbs::get::Get;
use crate::verbs::hunt::Hunt;
use crate::verbs::status::Status;
use api::path;

/// The words after `--`.
#[derive(Debug, Parser)]
#[command(name = "retrocap ask HOSTS --", no_binary_name = true, disable_version_flag = true)]
pub(super) struct AskedCommand {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) verb: AskedVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum AskedVerb {
    Flows(Box<Flows>),
    Hunt(Box<Hunt>),
    Status(Status),
    Get(Box<Get>),
}

/// A question to every recorder.
pub(super) enum Asked<'a> {
    Sessions { flows: &'a Flows, target: String },
    Matches { target: String },
    Status,
    Packets { get: &'a Get, target: String },
}

impl<'a> Asked<'a> {
    /// The question that a verb asks.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::error::Usage) for an option that needs something else than the recorders' answers.
    pub(super) fn new(verb: &'a AskedVerb, common: &Common) -> anyhow::Result<Self> {
        let (now, tz) = (common.now(), TimeZone::system());
        Ok(match verb {
            AskedVerb::Flows(flows) => Self::Sessions { target: flows.target_for_recorders(now, &tz)?, flows },
            AskedVerb::Hunt(hunt) => Self::Matches { target: hunt.question_for_recorders(now, &tz)?.target() },
            AskedVerb::Status(_) => Self::Status,
            AskedVerb::Get(get) => Self::Packets { target: get.question_for_recorders(now, &tz)?.target(), get },
        })
    }

    pub(super) fn target(&self) -> &str {
        match self {
            Self::Sessions { target, .. } | Self::Matches { target } | Self::Packets { target, .. } => target,
            Self::Status => path::STATUS,
        }
    }

    pub(super) fn kind(&self) -> AnswerKind {
        match self {
            Self::Sessions { .. } | Self::Matches { .. } => AnswerKind::Lines,
            Self::Status => AnswerKind::Status,
            Self::Packets { .. } => AnswerKind::Packets,
        }
    }
}
