//! `retrocap pin`: keep the sessions that match a filter whole.

use clap::Args;
use hyper::Method;

use super::client::{self, Target};
use super::{Common, Usage, print, selection};
use crate::time;

/// Keep the sessions that match a filter whole, for a time (not built yet: the recorder says so).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap pin host 10.0.0.5 --for 2h     keep everything of one host
  retrocap pin --list                     what is pinned, and until when
  retrocap pin --remove 3                 let it go")]
pub(super) struct Pin {
    /// For how long: 30m, 2h
    #[arg(long = "for", value_name = "DURATION", requires = "expression")]
    duration: Option<String>,
    /// Show what is pinned
    #[arg(long, conflicts_with_all = ["remove", "expression"])]
    list: bool,
    /// Remove this pin
    #[arg(long, value_name = "ID", conflicts_with = "expression")]
    remove: Option<u64>,
    /// tcpdump expression, as in: host 10.0.0.5
    #[arg(value_name = "EXPR", allow_negative_numbers = true)]
    expression: Vec<String>,
}

impl Pin {
    /// Asks for a pin, a list or a removal, and prints the answer.
    pub(super) fn run(&self, common: &Common) -> anyhow::Result<()> {
        let target = Target::new("/v1/pins");
        let mut answer = if let Some(id) = self.remove {
            client::ask(&common.socket(), Method::DELETE, target.with("id", Some(id)).as_str(), None)?
        } else if self.list {
            client::get(&common.socket(), &target)?
        } else {
            let (Some(expression), Some(duration)) = (selection::expression(&self.expression)?, &self.duration) else {
                return Err(Usage::of(
                    "what to pin, and for how long? try retrocap pin host 10.0.0.5 --for 2h, or retrocap pin --list",
                ));
            };
            let duration = time::parse_duration(duration).map_err(Usage::of)?;
            let body = serde_json::json!({ "filter": expression, "for_s": duration.as_secs_f64() });
            client::ask(&common.socket(), Method::POST, target.as_str(), Some(body.to_string()))?
        };
        let document = answer.document()?;
        if document.is_empty() { Ok(()) } else { print(&format!("{}\n", document.trim_end())) }
    }
}
