//! The list of recorders to ask: from arguments, a file, or DNS.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use super::srv;
use crate::client::remote::Remote;
use crate::error::Usage;
use crate::options::Common;

/// The most recorders of a question.
const RECORDERS_MAX: usize = 100_000;
/// The most bytes of a file with hosts.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Mistakes that one message lists.
const MISTAKES_SHOWN: usize = 5;

/// Where recorders are named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostSources<'a> {
    pub(crate) arguments: &'a [String],
    pub(crate) files: &'a [std::path::PathBuf],
    pub(crate) services: &'a [String],
}

/// The recorders that the sources name, each once, in their order.
///
/// # Errors
///
/// [`Usage`] that lists the mistakes, if a name is none of a recorder; if no recorder is named, or too many.
pub(crate) fn recorders(sources: HostSources<'_>, common: &Common) -> anyhow::Result<Vec<Remote>> {
    let mut list = HostList { common, seen: BTreeSet::new(), recorders: Vec::new(), mistakes: Vec::new() };
    for host in sources.arguments {
        list.add(host, "");
    }
    for path in sources.files {
        let text = read(path).with_context(|| format!("cannot read the hosts in {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            for host in line.split([' ', '\t', ',', ';']).filter(|word| !word.is_empty()) {
                list.add(host, &format!("{} line {}: ", path.display(), number + 1));
            }
        }
    }
    for service in sources.services {
        for target in srv::targets(service)? {
            list.add(&target, &format!("{service}: "));
        }
    }
    list.end()
}

fn read(path: &Path) -> anyhow::Result<String> {
    let from: Box<dyn std::io::Read> =
        if path == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(std::fs::File::open(path)?) };
    let mut text = String::new();
    from.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

struct HostList<'a> {
    common: &'a Common,
    seen: BTreeSet<String>,
    recorders: Vec<Remote>,
    mistakes: Vec<String>,
}

impl HostList<'_> {
    fn add(&mut self, host: &str, place: &str) {
        let name = host.strip_prefix("https://").unwrap_or(host).trim_end_matches('/').to_ascii_lowercase();
        match Remote::new(host.to_owned(), self.common.files()) {
            Ok(recorder) if self.seen.insert(name) => self.recorders.push(recorder),
            Ok(_) => {}
            Err(error) => self.mistakes.push(format!("{place}{error}")),
        }
    }

    fn end(self) -> anyhow::Result<Vec<Remote>> {
        if !self.mistakes.is_empty() {
            let more = self.mistakes.len().saturating_sub(MISTAKES_SHOWN);
            let mut text = self.mistakes[..self.mistakes.len().min(MISTAKES_SHOWN)].join("\nretrocap: ");
            if more > 0 {
                text.push_str(&format!("\nretrocap: and {more} more"));
            }
            return Err(Usage::of(text));
        }
        match self.recorders.len() {
            0 => Err(Usage::of(
                "no recorder is named: try retrocap ask sensor1:57443 sensor2:57443 -- flows host 192.0.2.7",
            )),
            RECORDERS_MAX.. => Err(Usage::of(format_args!("more than {RECORDERS_MAX} recorders: ask them in parts"))),
            _ => Ok(self.recorders),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(arguments: &[&str], file: &str) -> anyhow::Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, file).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|&host| host.to_owned()).collect();
        let sources = HostSources { arguments: &arguments, files: &[path], services: &[] };
        Ok(recorders(sources, &Common::default())?.into_iter().map(|recorder| recorder.url).collect())
    }

    #[test]
    fn each_recorder_is_asked_once() {
        let file =
            "# sensors\nsensor2:57443, https://sensor3:1\n\n  sensor1:57443 # the first again\n[2001:db8::1]:2\n";
        let expected = ["sensor1:57443", "sensor2:57443", "https://sensor3:1", "[2001:db8::1]:2"];
        assert_eq!(urls(&["sensor1:57443", "https://SENSOR1:57443/"], file).unwrap(), expected);
    }

    #[test]
    fn mistakes_name_their_line() {
        let error = urls(&[], "sensor1\nhttp://sensor2\nsensor3:99999\n").unwrap_err();
        assert!(error.is::<Usage>());
        let error = error.to_string();
        assert!(
            error.contains("hosts line 2: \"http://sensor2\" is no recorder") && error.contains("line 3"),
            "{error}"
        );
        assert!(urls(&[], "").unwrap_err().to_string().contains("no recorder is named"));
        let many = (0..9).map(|n| format!("ftp://h{n} ")).collect::<String>();
        assert!(urls(&[], &many).unwrap_err().to_string().contains("and 4 more"));
    }
}
