//! Formats aligned columns, as many as fit. The least informative columns are dropped first. Cells are never truncated,
//! so that users can copy them.

use unicode_width::UnicodeWidthStr as _;

use crate::terminal::printable::plain;
use crate::terminal::screen::{BOLD, Screen};

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// The text above the column.
    pub(crate) heading: &'static str,
    /// Whether cells are aligned right, as for numbers.
    pub(crate) right: bool,
    /// Priority for dropping the column if there is no room: the highest goes first, 0 never.
    pub(crate) leave_out: u8,
}

/// A cell of a column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    colour: Option<&'static str>,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(&text, None)
    }
}

impl Cell {
    /// A cell with a style. Foreign text is made safe for terminals.
    pub(crate) fn new(text: &str, colour: Option<&'static str>) -> Self {
        Self { text: plain(text).into_owned(), colour }
    }
}

/// A row of the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// One cell per column.
    pub(crate) cells: Vec<Cell>,
    /// Text after the last column if there is room, otherwise on a line of its own.
    pub(crate) remark: Cell,
}

/// Maximum width that cells are padded to where lines have no limit.
const COLUMN_WIDTH_MAX: usize = 256;

/// Space between columns.
const GAP: &str = "  ";

/// A table that is written page by page. Columns never become narrower on a later page.
#[derive(Debug)]
pub(crate) struct Table {
    screen: Screen,
    columns: Vec<Column>,
    widths: Vec<usize>,
    /// Which columns have text on the first page. A screen shows only these.
    filled: Vec<bool>,
    begun: bool,
}

impl Table {
    pub(crate) fn new(screen: Screen, columns: &[Column]) -> Self {
        Self {
            screen,
            columns: columns.to_vec(),
            widths: vec![0; columns.len()],
            filled: vec![true; columns.len()],
            begun: false,
        }
    }

    /// Appends rows, with the headings before the first page. `first` replaces the heading of the first column.
    pub(crate) fn page(&mut self, out: &mut String, first: Option<&str>, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        let headings: Vec<Cell> = (self.columns.iter().enumerate())
            .map(|(i, column)| first.filter(|_| i == 0).unwrap_or(column.heading).to_owned())
            .map(|text| Cell::new(&text, Some(BOLD)))
            .collect();
        let headings = Row { cells: headings, remark: Cell::default() };
        // Limit the width, so that one long cell neither shifts all others nor fills memory with blanks.
        let widest = self.screen.width.map_or(COLUMN_WIDTH_MAX, |width| width / 2);
        let begins = !std::mem::replace(&mut self.begun, true);
        if begins {
            let is_filled =
                |i: usize| rows.iter().any(|row| row.cells.get(i).is_some_and(|cell| !cell.text.is_empty()));
            self.filled = (0..self.columns.len()).map(is_filled).collect();
        }
        for row in rows.iter().chain(begins.then_some(&headings)) {
            for (width, cell) in self.widths.iter_mut().zip(&row.cells) {
                *width = cell.text.width().min(widest).max(*width);
            }
        }
        let shown = self.shown();
        for row in begins.then_some(&headings).into_iter().chain(rows) {
            self.line(out, row, &shown);
        }
    }

    /// Selects the columns that fit.
    fn shown(&self) -> Vec<bool> {
        let mut shown = vec![true; self.columns.len()];
        let Some(width) = self.screen.width else { return shown };
        shown.clone_from(&self.filled);
        while self.width(&shown) > width {
            let left = self.columns.iter().enumerate().filter(|(i, column)| shown[*i] && column.leave_out > 0);
            match left.max_by_key(|(_, column)| column.leave_out) {
                Some((i, _)) => shown[i] = false,
                None => break,
            }
        }
        shown
    }

    fn width(&self, shown: &[bool]) -> usize {
        let widths = self.widths.iter().zip(shown).filter(|(_, shown)| **shown);
        widths.map(|(width, _)| width + GAP.len()).sum::<usize>().saturating_sub(GAP.len())
    }

    fn line(&self, out: &mut String, row: &Row, shown: &[bool]) {
        let columns = self.columns.iter().zip(&self.widths).zip(&row.cells).zip(shown);
        let mut used = 0;
        let mut pending = 0;
        for (((column, &width), cell), _) in columns.filter(|(_, shown)| **shown) {
            let columns_used = cell.text.width();
            let blank = width.saturating_sub(columns_used);
            let (before, after) = if column.right { (blank, 0) } else { (0, blank) };
            pending += before;
            if columns_used > 0 {
                out.push_str(&" ".repeat(pending));
                out.push_str(&self.screen.paint(cell.colour.unwrap_or_default(), &cell.text));
                used += pending + columns_used;
                pending = 0;
            }
            pending += after + GAP.len();
        }
        let remark = &row.remark;
        if !remark.text.is_empty() {
            let text = self.screen.paint(remark.colour.unwrap_or_default(), &remark.text);
            let fits = self.screen.width.is_none_or(|width| used + pending + remark.text.width() <= width);
            let indent = self.widths.first().copied().unwrap_or(0) + GAP.len();
            if fits {
                out.push_str(&format!("{}{text}", " ".repeat(pending)));
            } else {
                out.push_str(&format!("\n{}{text}", " ".repeat(indent)));
            }
        }
        out.push('\n');
    }
}
