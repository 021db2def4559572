//! What a file had that rotation removes: stated in the log, so that nobody takes what is left for all there was.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::super::clock::now;
use base::foreign::json_document;

/// Bytes of a line that are read to find its time.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// The line that says what was in a file; `None` if there is no such file.
pub(super) fn describe(path: &Path) -> Option<String> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(no_follow).open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
    let (mut lines, mut first, mut last) = (0u64, None, None);
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while let Some(length) = next_line(&mut reader, &mut line) {
        if length == 0 {
            break;
        }
        lines += 1;
        let time = serde_json::from_slice::<Value>(&line).ok().and_then(|value| value.get("time").cloned());
        first = first.or_else(|| time.clone());
        last = time.or(last);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let line = json!({
        "time": now().to_rfc3339(),
        "event": "removed",
        "removed": { "file": name, "lines": lines, "bytes": bytes, "first": first, "last": last },
    });
    Some(json_document(&line.to_string()).into_owned())
}

/// Reads a line, of a long one its beginning; gives its length, 0 at the end and `None` if it cannot be read.
fn next_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> Option<usize> {
    line.clear();
    let length = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line).ok()?;
    if length > 0 && !line.ends_with(b"\n") {
        let _ = reader.skip_until(b'\n').ok()?;
    }
    Some(length)
}
