//! Chart of the horizons in SVG format, for the documentation.

use std::fmt::Write as _;

use crate::measure::Measured;
use crate::report::{COLUMNS, POLICIES, duration, horizons_s};

const COLOURS: [&str; 3] = ["#9aa5b1", "#d9a441", "#2f6f9f"];
const LEFT: f64 = 120.0;
const WIDTH: f64 = 760.0;
const BAR: f64 = 16.0;
const GROUP: f64 = 3.0 * BAR + 22.0;
const TOP: f64 = 62.0;
/// The logarithmic axis covers 10 s to 10 h.
const SHORTEST_S: f64 = 10.0;
const LONGEST_S: f64 = 36_000.0;
const TICKS: [(f64, &str); 6] =
    [(10.0, "10 s"), (60.0, "1 min"), (300.0, "5 min"), (1800.0, "30 min"), (7200.0, "2 h"), (36_000.0, "10 h")];

/// Draws the mean horizons of all policies.
pub(crate) fn svg(title: &str, means: &[Measured; 3]) -> String {
    let height = TOP + COLUMNS.len() as f64 * GROUP + 40.0;
    let x = |seconds: f64| {
        let share = (seconds.clamp(SHORTEST_S, LONGEST_S) / SHORTEST_S).ln() / (LONGEST_S / SHORTEST_S).ln();
        LEFT + share * (WIDTH - LEFT - 90.0)
    };
    let mut out = String::new();
    let mut put = |line: String| writeln!(out, "{line}").expect("a string takes everything");
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">"
    ));
    put(format!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"));
    put(format!("<text x=\"12\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{title}</text>"));
    for (at, (policy, colour)) in POLICIES.iter().zip(COLOURS).enumerate() {
        let left = LEFT + at as f64 * 140.0;
        put(format!("<rect x=\"{left}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"));
        put(format!("<text x=\"{}\" y=\"42\">{policy}</text>", left + 18.0));
    }
    for (seconds, label) in TICKS {
        let at = x(seconds);
        let bottom = height - 34.0;
        put(format!("<line x1=\"{at}\" y1=\"{}\" x2=\"{at}\" y2=\"{bottom}\" stroke=\"#e3e7eb\"/>", TOP - 8.0));
        put(format!("<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\" fill=\"#52606d\">{label}</text>", height - 18.0));
    }
    for (row, name) in COLUMNS.iter().enumerate() {
        let top = TOP + row as f64 * GROUP;
        put(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", LEFT - 10.0, top + 1.5 * BAR + 4.0));
        for (at, (measured, colour)) in means.iter().zip(COLOURS).enumerate() {
            let (seconds, y) = (horizons_s(measured)[row], top + at as f64 * BAR);
            let width = (x(seconds) - LEFT).max(1.0);
            put(format!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                BAR - 2.0
            ));
            put(format!(
                "<text x=\"{:.1}\" y=\"{}\" font-size=\"11\" fill=\"#323f4b\">{}</text>",
                LEFT + width + 5.0,
                y + BAR - 5.0,
                duration(seconds)
            ));
        }
    }
    put("</svg>".to_owned());
    out
}
