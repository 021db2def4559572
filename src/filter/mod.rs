//! tcpdump expressions.
