//! The daemon's log on stderr. Under systemd it uses the journal's format.

use std::io::IsTerminal as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, reload};

/// Starts logging at `level`, or as `RUST_LOG` says. The returned function changes the level.
pub(crate) fn start(level: &'static str) -> Box<dyn FnMut(&'static str) + Send> {
    let filter = |level| EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let (levels, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer().with_target(false).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = if std::env::var_os("JOURNAL_STREAM").is_some() {
        let plain = Format::default().without_time().with_level(false).with_target(false);
        lines.event_format(Journal(plain)).boxed()
    } else {
        lines.boxed()
    };
    // This fails only if a subscriber is set already, as in a test.
    let _ = tracing_subscriber::registry().with(levels).with(lines).try_init();
    let mut now = level;
    Box::new(move |level| {
        if now != level && handle.reload(filter(level)).is_ok() {
            now = level;
        }
    })
}

/// Prefixes each line with its priority (`sd-daemon(3)`). The journal adds times itself, and filters by priority.
struct Journal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        // Keep one line per event: a second line would have no priority and could pass for another message.
        writeln!(to, "<{priority}>{}", line.trim_end_matches('\n').replace('\n', " "))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_journal_gets_one_line_with_its_priority() {
        let written = Written::default();
        let to = written.clone();
        let journal = Journal(Format::default().without_time().with_level(false).with_target(false));
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(Level::TRACE)
            .with_writer(move || to.clone())
            .event_format(journal)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("disk\n<0>full");
            tracing::warn!(worker = 1, "slow");
            tracing::info!("recording");
            tracing::debug!("asked");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "<3>disk <0>full\n<4>slow worker=1\n<6>recording\n<7>asked\n");
    }
}
