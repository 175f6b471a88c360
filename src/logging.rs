//! Logs go to stderr, and nothing else does; stdout belongs to the state dumps.

use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogConfig;

/// Starts logging for the rest of the process; a second call changes nothing.
pub fn start(config: LogConfig) {
    let _ = subscriber(config, std::io::stderr).try_init();
}

/// Times are UTC with microseconds (RFC 3339). There are no colours, so that a journal and a terminal show the same.
fn subscriber<W>(config: LogConfig, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // At debug other crates speak too, and then it matters who does.
    let layer = fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        .with_target(config.level >= Level::DEBUG);
    let layer = if config.json {
        layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed()
    } else {
        layer.boxed()
    };
    tracing_subscriber::registry().with(layer.with_filter(filter(config.level)))
}

/// Our own words at the level that was asked for; those of libraries at warnings, or debug where debug was asked
/// for: their traces print every byte they read, secrets among them.
fn filter(level: Level) -> Targets {
    let libraries = match level {
        Level::ERROR => LevelFilter::ERROR,
        Level::WARN | Level::INFO => LevelFilter::WARN,
        Level::DEBUG | Level::TRACE => LevelFilter::DEBUG,
    };
    Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_default(libraries)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, json: bool, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(
            subscriber(LogConfig { level, json }, move || writer.clone()),
            log,
        );
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let text = logged(Level::INFO, true, || {
            tracing::info!(from = "replica", to = "master", "role changed")
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "role changed");
        assert_eq!(line["level"], "INFO");
        assert_eq!(
            (&line["from"], &line["to"]),
            (&"replica".into(), &"master".into())
        );
        let timestamp = line["timestamp"].as_str().unwrap();
        assert_eq!(
            timestamp.len(),
            "2026-01-02T03:04:05.123456Z".len(),
            "{timestamp}"
        );
        assert!(timestamp.ends_with('Z'), "{timestamp}");
        assert_eq!(line.as_object().unwrap().len(), 5, "{line}");
    }

    #[test]
    fn text_has_no_colours() {
        let text = logged(Level::INFO, false, || tracing::warn!(key = 1, "hello"));
        assert!(
            text.contains("WARN hello key=1") && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn libraries_are_heard_only_when_they_warn() {
        let speak = || {
            tracing::info!(target: "hyper::client", "connected");
            tracing::warn!(target: "hyper::client", "reset");
            tracing::debug!("of ours");
        };
        let text = logged(Level::INFO, false, speak);
        assert!(
            text.contains("reset") && !text.contains("connected") && !text.contains("of ours"),
            "{text}"
        );
        let text = logged(Level::DEBUG, false, speak);
        assert!(
            text.contains("hyper::client: connected") && text.contains("of ours"),
            "{text}"
        );
    }
}
