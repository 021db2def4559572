//! Aligned columns, as many as fit: those that tell least go first, and nothing is cut that one would copy.

use unicode_width::UnicodeWidthStr as _;

use crate::terminal::printable::plain;
use crate::terminal::screen::{BOLD, Screen};

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// What stands above it.
    pub(crate) heading: &'static str,
    /// Numbers end at the same place.
    pub(crate) right: bool,
    /// Left out where there is no room, the highest first; 0 for never.
    pub(crate) leave_out: u8,
}

/// What stands in a column.
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
    /// A text, which may be another's, in a colour.
    pub(crate) fn new(text: &str, colour: Option<&'static str>) -> Self {
        Self { text: plain(text).into_owned(), colour }
    }
}

/// A line of the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// One for each column.
    pub(crate) cells: Vec<Cell>,
    /// What stands behind the last column where there is room, and else on a line of its own.
    pub(crate) remark: Cell,
}

/// Columns of a terminal that cells are padded to at most, where lines are as long as they are.
const COLUMN_WIDTH_MAX: usize = 256;

/// Between columns.
const GAP: &str = "  ";

/// A table that grows page by page; a later page is never narrower than one before it.
#[derive(Debug)]
pub(crate) struct Table {
    screen: Screen,
    columns: Vec<Column>,
    widths: Vec<usize>,
    /// Which columns have something in them on the first page; on a screen the others are left out.
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

    /// Appends some rows, the headings before the first; `first` replaces the heading of the first column.
    pub(crate) fn page(&mut self, out: &mut String, first: Option<&str>, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        let headings: Vec<Cell> = (self.columns.iter().enumerate())
            .map(|(i, column)| first.filter(|_| i == 0).unwrap_or(column.heading).to_owned())
            .map(|text| Cell::new(&text, Some(BOLD)))
            .collect();
        let headings = Row { cells: headings, remark: Cell::default() };
        // One long cell does not push all others to the side, nor fill memory with blanks.
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

    /// Which columns fit.
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
