//! The roles of threads.

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes packets from the kernel, stores, evicts and compresses them. It opens files for reading only, and talks to
    /// nobody.
    Capture,
    /// Learns from the kernel which interfaces exist.
    Interfaces,
    /// Answers a query. It opens files for reading only.
    Query,
    /// Accepts connections and moves bytes.
    Serve,
    /// Writes the audit log.
    Audit,
    /// Writes the spool: files in its directory, and nothing else.
    Spool,
    /// Decodes hostile content in a process of its own, for a client.
    Decode,
    /// The first thread, and the limit for threads without another role.
    Main,
}

impl Role {
    /// All roles but that of the first thread.
    pub const OF_THREADS: [Self; 6] =
        [Self::Capture, Self::Interfaces, Self::Query, Self::Serve, Self::Audit, Self::Spool];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Interfaces => "interfaces",
            Self::Query => "query",
            Self::Serve => "serve",
            Self::Audit => "audit",
            Self::Spool => "spool",
            Self::Decode => "decode",
            Self::Main => "main",
        }
    }
}
