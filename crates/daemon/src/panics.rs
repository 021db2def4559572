//! Panics of any thread are counted and logged in one line that names the place. A panic of a query ends that query; a panic
//! of a worker ends the recorder.

use std::panic::PanicHookInfo;
use std::sync::Once;

use base::log_limit::LogLimit;
use serve::PANICS;

/// Replaces the default hook, which writes several lines to stderr as often as a client can cause it.
pub(super) fn log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(hook)));
}

fn hook(panic: &PanicHookInfo<'_>) {
    static LIMIT: LogLimit = LogLimit::new();
    PANICS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if let Some(left_out) = LIMIT.admit() {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("without a message");
        tracing::error!("{} panicked at {place}: {message}{left_out}", thread.name().unwrap_or("a thread"));
    }
}
