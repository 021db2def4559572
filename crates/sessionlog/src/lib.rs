//! The log of sessions on disk: Parquet files, one directory for each hour.
//!
//! ```text
//!  memory: table, archive ──► collector ──► row group ──► .tmp file ──► fsync, rename ──► sessions/date=…/hour=…/….parquet
//!                             each minute    when full                   end of the hour           │
//!                                                                        databases, `flows` ◄──────┘
//! ```
//!
//! Invariants:
//!
//! - A row says what one session did in one hour. The sum over all rows of a session is what memory counted.
//! - A file is whole or absent: it gets its name after it is durable. The name has the CRC-32 of the file.
//! - Memory does not depend on the traffic. A session that cannot be remembered waits, and what is lost is counted.
#![forbid(unsafe_code)]

pub mod collect;
pub mod columns;
pub mod decode;
pub mod encode;
mod open_file;
pub mod parts;
pub mod rewrite;
pub mod row;
pub mod shared;
pub mod tree;
pub mod value;
pub mod writer;
