//! What the recorders are asked, from the words of a verb.

use clap::{Parser, Subcommand};
use jiff::tz::TimeZone;

use crate::fleet::exchange::AnswerKind;
use crate::options::Common;
use crate::terminal::human;
use crate::verbs::flows::Flows;
use crate::verbs::get::Get;
use crate::verbs::hunt::Hunt;
use crate::verbs::status::Status;
use api::path;
use api::question::SelectionQuestion;
use base::time::Timestamp;

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
pub(super) struct Asked<'a> {
    pub(super) answers: Answers<'a>,
    /// Path and query string.
    pub(super) target: String,
    /// The start of the window; `None` for all that a recorder has.
    pub(super) since: Option<Timestamp>,
}

/// What recorders answer with.
pub(super) enum Answers<'a> {
    Sessions(&'a Flows),
    Matches,
    Status,
    Packets(&'a Get),
}

impl<'a> Asked<'a> {
    /// The question that a verb asks.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::error::Usage) for an option that needs something else than the recorders' answers.
    pub(super) fn new(verb: &'a AskedVerb, common: &Common) -> anyhow::Result<Self> {
        let (now, tz) = (common.now(), TimeZone::system());
        let (answers, target, selection) = match verb {
            AskedVerb::Flows(flows) => {
                let question = flows.question_for_recorders(now, &tz)?;
                (Answers::Sessions(flows), question.target(), question.selection)
            }
            AskedVerb::Hunt(hunt) => {
                let question = hunt.question_for_recorders(now, &tz)?;
                (Answers::Matches, question.target(), question.selection)
            }
            AskedVerb::Get(get) => {
                let question = get.question_for_recorders(now, &tz)?;
                (Answers::Packets(get), question.target(), question.selection)
            }
            AskedVerb::Status(_) => (Answers::Status, path::STATUS.to_owned(), SelectionQuestion::default()),
        };
        let since = selection.since.as_deref().and_then(human::time);
        Ok(Self { answers, target, since })
    }

    pub(super) fn kind(&self) -> AnswerKind {
        match self.answers {
            Answers::Sessions(_) | Answers::Matches => AnswerKind::Lines,
            Answers::Status => AnswerKind::Status,
            Answers::Packets(_) => AnswerKind::Packets,
        }
    }
}
