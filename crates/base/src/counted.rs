//! Counts in sentences.

/// A count with its words: `1 packet was`, `7 packets were`.
pub fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}
