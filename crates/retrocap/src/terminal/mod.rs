//! What is written to terminals and files: text, tables, colours, progress, exports.

pub(crate) mod csv;
pub(crate) mod human;
pub(crate) mod listing;
pub(crate) mod log;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod table;
pub(crate) mod view;
