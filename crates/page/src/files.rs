//! The files of the page, compressed once when the first of them is asked for.

use std::io::Write as _;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::headers::Purpose;

/// The worker that dissects packets.
const DISSECTOR: &str = "dissector.js";

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Its name; the page itself is `index.html`.
    pub name: &'static str,
    /// Its content.
    pub content: &'static [u8],
    /// The same in gzip.
    pub gzip: &'static [u8],
}

impl File {
    /// Its media type.
    pub fn content_type(&self) -> &'static str {
        content_type(self.name)
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        if self.name == DISSECTOR { Purpose::Dissector } else { Purpose::Page }
    }
}

/// The media type of a file with this name.
pub fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

/// Embeds files by name.
macro_rules! embedded {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_bytes!(concat!("../files/", $name)))),+]
    };
}

const CONTENTS: &[(&str, &[u8])] = embedded![
    "index.html",
    "page.css",
    "icon.svg",
    "main.js",
    "api.js",
    "state.js",
    "store.js",
    "search.js",
    "searchbox.js",
    "format.js",
    "ui.js",
    "bar.js",
    "strip.js",
    "table.js",
    "talkers.js",
    "detail.js",
    "said.js",
    "packet.js",
    "hunt.js",
    "alerts.js",
    "pack.js",
    "dissector.js",
];

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let file =
        |&(name, content): &(&'static str, &'static [u8])| File { name, content, gzip: compressed(content).leak() };
    CONTENTS.iter().map(file).collect()
});

fn compressed(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default()
}

/// The file of this name.
pub fn file(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

/// All files.
pub fn all() -> &'static [File] {
    &FILES
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Bytes that a first visit may take.
    const FIRST_VISIT_BYTES_MAX: usize = 100_000;

    #[test]
    fn a_first_visit_is_small_and_is_sent_as_it_is_stored() {
        let visit: usize = all().iter().map(|file| file.gzip.len()).sum();
        assert!(visit <= FIRST_VISIT_BYTES_MAX, "{visit} bytes");
        for file in all() {
            let mut content = Vec::new();
            flate2::read::GzDecoder::new(file.gzip).read_to_end(&mut content).unwrap();
            assert_eq!(content, file.content, "{}", file.name);
        }
    }

    #[test]
    fn every_file_of_the_folder_is_embedded_and_none_names_another_host() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/files");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(file(&name).is_some(), "{name} is not embedded");
        }
        for file in all() {
            let text = String::from_utf8_lossy(file.content);
            let foreign = text.match_indices("://").filter(|(at, _)| {
                let before = &text[..*at];
                // The name of a markup language, and the host of a command that the page shows.
                let is_name = text[*at..].starts_with("://www.w3.org/");
                let is_command = before.ends_with("http") && text[*at..].starts_with("://localhost");
                !(is_name || is_command)
            });
            assert_eq!(foreign.count(), 0, "{} names another host", file.name);
            for inline in [
                "<script>",
                "onclick=",
                "onerror=",
                "style=\"",
                "javascript:",
                "innerHTML",
                "eval(",
                "insertAdjacentHTML",
            ] {
                assert!(!text.contains(inline), "{} contains {inline}", file.name);
            }
        }
    }
}
