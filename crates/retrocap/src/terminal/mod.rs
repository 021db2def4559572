//! Output to terminals and files: text, tables, colours, progress and exports.

pub(crate) mod compression;
pub(crate) mod csv;
pub(crate) mod destination;
pub(crate) mod hex_dump;
pub(crate) mod human;
pub(crate) mod interface_lines;
pub(crate) mod listing_totals;
pub(crate) mod log;
pub(crate) mod output;
pub(crate) mod printable;
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod session_tables;
pub(crate) mod spool_page;
pub(crate) mod status_page;
pub(crate) mod table;
