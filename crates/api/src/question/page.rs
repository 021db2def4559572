//! The questions about what sessions said, and the further ones of the web page.

use std::num::NonZeroU64;

use super::{Pairs, Parameter, ParameterError, ParameterValue, SelectionQuestion, path, target};

question! {
    /// What only `GET /v1/timeline` takes.
    pub struct TimelineRules {
        spans: u64 = "spans", example "600"
            => "Into how many equal spans the time is divided, at most 4096; 600 by default. The last ones are left out where the time is used up.";
    }
}

question! {
    /// What only `GET /v1/lines` takes.
    pub struct LineRules {
        count: u64 = "count", example "1000"
            => "At most this many packets, the first that match; 1000 by default, at most 10000.";
    }
}

question! {
    /// What only `GET /v1/streams` takes.
    pub struct StreamRules {
        bytes: u64 = "bytes", example "262144"
            => "At most about this many bytes of both directions together; 262144 by default, at most 4194304.";
    }
}

question! {
    /// What only `GET /v1/messages` takes.
    pub struct MessageRules {
        count: u64 = "count", example "1000"
            => "At most this many messages, the first ones; 1000 by default, at most 10000.";
    }
}

question! {
    /// What only `POST /v1/hunt/rule` takes.
    pub struct OwnRuleRules {
        limit: NonZeroU64 = "limit", example "100"
            => "Ends after this many matches.";
    }
}

/// What `POST /v1/hunt/rule` is asked, beside the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnRuleQuestion {
    /// In which packets.
    pub selection: SelectionQuestion,
    /// How many matches.
    pub rules: OwnRuleRules,
}

/// What `GET /v1/timeline` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimelineQuestion {
    /// Which sessions.
    pub selection: SelectionQuestion,
    /// In how many spans.
    pub rules: TimelineRules,
}

/// What `GET /v1/lines` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinesQuestion {
    /// Which packets.
    pub selection: SelectionQuestion,
    /// How many.
    pub rules: LineRules,
}

/// What `GET /v1/streams` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamsQuestion {
    /// Of which packets.
    pub selection: SelectionQuestion,
    /// How much.
    pub rules: StreamRules,
}

/// What `GET /v1/messages` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessagesQuestion {
    /// Of which packets.
    pub selection: SelectionQuestion,
    /// How many.
    pub rules: MessageRules,
}

with_selection!(TimelineQuestion, path::TIMELINE, rules: TimelineRules);
with_selection!(LinesQuestion, path::LINES, rules: LineRules);
with_selection!(StreamsQuestion, path::STREAMS, rules: StreamRules);
with_selection!(MessagesQuestion, path::MESSAGES, rules: MessageRules);
with_selection!(OwnRuleQuestion, path::HUNT_RULE, rules: OwnRuleRules);
