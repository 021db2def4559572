//! Properties of stdout: its width, and whether it shows colours.

use std::io::IsTerminal as _;

pub(crate) const BOLD: &str = "\x1b[1m";
pub(crate) const DIM: &str = "\x1b[2m";
pub(crate) const RED: &str = "\x1b[1;31m";
pub(crate) const GREEN: &str = "\x1b[32m";
pub(crate) const YELLOW: &str = "\x1b[33m";
pub(crate) const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// Length in bytes of the style of this program that `text` starts with, if any.
pub(super) fn is_style(text: &str) -> Option<usize> {
    let styles = [BOLD, DIM, RED, GREEN, YELLOW, CYAN, PLAIN];
    styles.iter().find(|style| text.starts_with(**style)).map(|style| style.len())
}

/// Width and colour of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Columns; `None` where lines have no limit.
    pub(crate) width: Option<usize>,
    /// Whether colour may be used.
    pub(crate) colour: bool,
}

/// Plausible widths. Others are ignored.
const WIDTHS: std::ops::RangeInclusive<usize> = 20..=2000;

impl Screen {
    /// The properties of stdout. `COLUMNS`, `NO_COLOR` and `CLICOLOR_FORCE` override those of the terminal.
    pub(crate) fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Self {
            width: columns.or_else(|| terminal.then(crate::machine::terminal_width)).filter(|n| WIDTHS.contains(n)),
            colour: !is_set("NO_COLOR") && (terminal || is_set("CLICOLOR_FORCE")),
        }
    }

    /// Wraps text in a style if colours are on.
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
