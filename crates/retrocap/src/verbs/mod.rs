//! The verbs, one module each, and the arguments that several of them share.

mod analysis;
pub(crate) mod apps;
pub(crate) mod certs;
pub(crate) mod check;
mod chosen;
pub(crate) mod completions;
pub(crate) mod display_filter;
pub(crate) mod evidence;
mod export;
pub(crate) mod extcap;
pub(crate) mod files;
pub(crate) mod flows;
pub(crate) mod get;
pub(crate) mod habits;
pub(crate) mod hunt;
pub(crate) mod interfaces;
mod parameter;
pub(crate) mod pin;
mod process_selection;
pub(crate) mod push;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod selection;
pub(crate) mod size;
pub(crate) mod spool;
pub(crate) mod status;
mod trailers;
