//! Searches the contents of objects. A process of its own puts them together, decodes and searches them, and may only compute:
//! content of the network is hostile, and decoders have mistakes. What it says is not trusted either.

mod frame;
mod process;
mod searcher;

pub(super) use frame::ObjectRules;
pub(crate) use process::SearchObjects;
pub(super) use searcher::{FoundObject, ObjectSearcher};
