//! The table: one line per measurement, printed as soon as it is made.

use std::fmt::Display;

/// One line of the table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The quantity that was measured.
    pub(crate) what: String,
    /// The figure with its unit.
    pub(crate) ours: String,
    /// The figure it is compared with, measured in the same run.
    pub(crate) peer: String,
    /// Our figure divided by the peer's.
    pub(crate) ratio: Option<f64>,
    /// The required value.
    pub(crate) aim: &'static str,
}

impl Row {
    pub(crate) fn new(what: impl Display, ours: impl Display) -> Self {
        Self { what: what.to_string(), ours: ours.to_string(), ..Self::default() }
    }

    pub(crate) fn beside(self, peer: impl Display, ratio: f64) -> Self {
        Self { peer: peer.to_string(), ratio: Some(ratio), ..self }
    }

    pub(crate) fn aim(self, aim: &'static str) -> Self {
        Self { aim, ..self }
    }

    pub(crate) fn print(self) {
        let ratio = self.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        println!("{}", line([&self.what, &self.ours, &self.peer, &ratio, self.aim]));
    }
}

fn line([what, ours, peer, ratio, aim]: [&str; 5]) -> String {
    format!("{what:<46} {ours:>24}  {peer:>24} {ratio:>7}  {aim}").trim_end().to_owned()
}

pub(crate) fn head() {
    println!("{}", line(["", "retrocap", "beside it", "ratio", "aim"]));
}

pub(crate) fn section(name: &str, about: &str) {
    println!("\n{name}: {about}");
}

/// Prints what could not be measured here, and why.
pub(crate) fn skipped(what: &str, why: impl Display) {
    println!("{what:<46} SKIPPED: {why}");
}

/// The median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 50)
}

/// The value that this percentage of the values does not exceed; 0 for no values.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(0.0)
}
