//! Why nothing was found: before the horizon, cut, kept out, dropped, or never seen.

use super::flows::{session_filter, wanted};
use super::{History, QueryError, Request};
use crate::time::Timestamp;

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// A word for scripts: `nothing_recorded`, `before_horizon`, `after_newest`, `cut`, `filtered` or `never_seen`.
    pub code: &'static str,
    /// A sentence for people.
    pub sentence: String,
}

impl History {
    /// Why `request` finds nothing.
    pub fn explain_nothing(&self, request: &Request) -> Result<Cause, QueryError> {
        let (since, until) = request.window()?;
        let totals = self.totals();
        let Some((oldest, newest)) = self.span() else {
            let kept_out = totals.filtered.packets;
            return Ok(if kept_out > 0 {
                let filter = self.capture_filter.as_deref().unwrap_or("");
                Cause {
                    code: "filtered",
                    sentence: format!(
                        "nothing is recorded: all {kept_out} packets so far were kept out by the capture filter {filter:?}"
                    ),
                }
            } else {
                Cause { code: "nothing_recorded", sentence: "no packet has been recorded yet".to_owned() }
            });
        };
        if until < oldest {
            return Ok(Cause {
                code: "before_horizon",
                sentence: format!("that is before the horizon: the oldest packet kept is of {oldest}"),
            });
        }
        if since > newest {
            return Ok(Cause {
                code: "after_newest",
                sentence: format!("nothing is as new as that: the newest packet kept is of {newest}"),
            });
        }
        if let Some(cause) = self.cut(request, since, until)? {
            return Ok(cause);
        }
        let mut sentence = "no packet that matches was seen".to_owned();
        if totals.lost_until.is_some()
            && let Some(whole) = self.whole_since().filter(|&whole| since < whole)
        {
            sentence.push_str(&format!("; before {whole} only the starts of sessions are kept"));
        }
        if let Some(filter) = &self.capture_filter {
            sentence.push_str(&format!("; the capture filter {filter:?} kept {} packets out", totals.filtered.packets));
        }
        if totals.kernel_dropped > 0 {
            sentence.push_str(&format!("; the kernel dropped {} packets", totals.kernel_dropped));
        }
        Ok(Cause { code: "never_seen", sentence })
    }

    /// Sessions that match, but whose packets of that window are gone.
    fn cut(&self, request: &Request, since: Timestamp, until: Timestamp) -> Result<Option<Cause>, QueryError> {
        let selection = request.selection(self)?;
        let mut filter = session_filter(request)?;
        let mut sessions = 0u64;
        let mut seen_bytes = 0;
        let mut kept_bytes = 0;
        for (_, session) in self.workers.iter().flat_map(|worker| worker.ledger.all(Some((since, until)))) {
            if session.last >= since
                && session.first <= until
                && session.kept_packets < session.packets.sum()
                && wanted(&selection, &mut filter, &session)
            {
                sessions += 1;
                seen_bytes += session.bytes.sum();
                kept_bytes += session.kept_bytes;
            }
        }
        if sessions == 0 {
            return Ok(None);
        }
        let what = if sessions == 1 {
            "a session that matches was".to_owned()
        } else {
            format!("{sessions} sessions that match were")
        };
        Ok(Some(Cause {
            code: "cut",
            sentence: format!(
                "{what} seen, but cut since: {kept_bytes} of {seen_bytes} bytes are left, none of them in this window that match"
            ),
        }))
    }
}
