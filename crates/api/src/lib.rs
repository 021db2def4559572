//! Questions, answers, roles and problems: the types that HTTP, the command line and the OpenAPI document share.
//!
//! Each parameter, key and sentence of the API is defined here once. [`question`] has the parameters of a query string as
//! types (their values are in [`value`]), from which reading, writing and the OpenAPI document are derived; [`parameters`] gives them their meaning;
//! [`describe`] puts a question into words for files and the audit log; [`bodies`], [`answers`] and [`content`] are JSON documents;
//! [`operation`] says what each operation takes and gives.
#![forbid(unsafe_code)]

pub mod answers;
pub mod bodies;
pub mod candidates;
pub mod content;
pub mod content_parameters;
pub mod describe;
mod error;
pub mod operation;
pub mod page_answers;
pub mod page_parameters;
pub mod parameters;
pub mod path;
pub mod problem;
pub mod question;
pub mod role;
pub mod value;

pub use problem::Problem;
pub use role::{Role, Roles};
