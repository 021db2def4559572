//! What stdout is: how wide, and whether it shows colours.

use std::io::IsTerminal as _;

pub(crate) const BOLD: &str = "\x1b[1m";
pub(crate) const DIM: &str = "\x1b[2m";
pub(crate) const RED: &str = "\x1b[1;31m";
pub(crate) const GREEN: &str = "\x1b[32m";
pub(crate) const YELLOW: &str = "\x1b[33m";
pub(crate) const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// Bytes of the style at the start of `text`, if one of this program's is there.
pub(super) fn is_style(text: &str) -> Option<usize> {
    let styles = [BOLD, DIM, RED, GREEN, YELLOW, CYAN, PLAIN];
    styles.iter().find(|style| text.starts_with(**style)).map(|style| style.len())
}

/// How things are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Columns; none where lines are as long as they are.
    pub(crate) width: Option<usize>,
    /// Whether colour may be used.
    pub(crate) colour: bool,
}

/// Widths that are believed.
const WIDTHS: std::ops::RangeInclusive<usize> = 20..=2000;

impl Screen {
    /// A terminal has a width and colours; `COLUMNS`, `NO_COLOR` and `CLICOLOR_FORCE` overrule it.
    pub(crate) fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Self {
            width: columns.or_else(|| terminal.then(crate::machine::terminal_width)).filter(|n| WIDTHS.contains(n)),
            colour: !is_set("NO_COLOR") && (terminal || is_set("CLICOLOR_FORCE")),
        }
    }

    /// Text in a colour, if there are colours.
    pub(crate) fn paint(self, colour: &str, text: &str) -> String {
        if self.colour && !text.is_empty() && !colour.is_empty() {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}
