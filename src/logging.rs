//! Logs go to stderr, and nothing else does; stdout belongs to the state dumps.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

mod last;

use crate::config::LogConfig;
use crate::outlet::{Descriptor, Outlet};

/// How much of the log waits for its reader, in bytes: some thousand lines, which is more than a change of hands writes
/// at `LOG_LEVEL=debug`, and little beside what the agent's own code takes.
const LOG_BOUND: usize = 1 << 20;
/// How much of the dumps waits for its reader, in bytes: dozens of documents, of which the last one matters.
const DUMPS_BOUND: usize = 1 << 20;
/// How long each reader is waited for when the process ends. One that reads at all takes a queue in milliseconds; one that
/// does not must not keep the supervisor from starting the next agent within the lease.
const LAST_WORDS: Duration = Duration::from_millis(500);

pub use last::Fault;
use last::LastFault;

/// What the agent says. It waits for neither reader before its end.
#[derive(Clone)]
pub struct Output {
    /// stderr.
    pub log: Outlet,
    /// stdout.
    pub dumps: Outlet,
    last_fault: LastFault,
}

/// What nobody will see of what the agent said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Lines of the log.
    pub log_lines: u64,
    /// Dumps.
    pub dumps: u64,
}

impl Output {
    /// What could not be written, or not in time, since the start.
    #[must_use]
    pub fn lost(&self) -> Lost {
        Lost {
            log_lines: self.log.lost(),
            dumps: self.dumps.lost(),
        }
    }

    /// The last warning or error, whatever `LOG_LEVEL` is.
    #[must_use]
    pub fn last_fault(&self) -> Option<Fault> {
        self.last_fault.get()
    }

    /// Waits for the last words to be read, a second at most.
    pub fn drain(&self) {
        self.log.drain(LAST_WORDS);
        self.dumps.drain(LAST_WORDS);
    }
}

/// Starts logging for a command in the foreground, for the rest of the process; a second call changes nothing.
pub fn start(config: LogConfig) {
    let _ = subscriber(config, io::stderr).try_init();
}

/// Starts logging for an agent, which waits for nobody who reads; a second call makes outlets that get no logs.
///
/// # Errors
/// There are no threads to be had.
pub fn start_agent(config: LogConfig) -> io::Result<Output> {
    // The descriptors are those of the process, and open: the standard library sees to that before `main`.
    let stderr = Descriptor(rustix::stdio::stderr());
    let stdout = Descriptor(rustix::stdio::stdout());
    let log = Outlet::open(
        "log",
        LOG_BOUND,
        stderr,
        Box::new(move |lines| lost_lines(config, lines)),
    )?;
    let dumps = Outlet::open("dumps", DUMPS_BOUND, stdout, Box::new(lost_dumps))?;
    let pen = Pen(log.clone());
    let last_fault = LastFault::default();
    let faults = last_fault.clone().with_filter(LevelFilter::WARN);
    let _ = subscriber(config, move || pen.clone())
        .with(faults)
        .try_init();
    let output = Output {
        log,
        dumps,
        last_fault,
    };
    let last = output.clone();
    // The standard library's own words would wait for the reader of stderr, and keep a dying process alive.
    std::panic::set_hook(Box::new(move |panic| {
        panicked(panic);
        last.drain();
    }));
    Ok(output)
}

/// One event's text at a time, to the outlet.
#[derive(Clone)]
struct Pen(Outlet);

impl Write for Pen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes.to_vec());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of the log in the log's own format, at any level: what is missing must not be missed.
fn lost_lines(config: LogConfig, lines: u64) -> Vec<u8> {
    let level = config.level.max(Level::WARN);
    let page = Page::default();
    let writer = page.clone();
    let subscriber = subscriber(LogConfig { level, ..config }, move || writer.clone());
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(lines, "log lines were lost: nobody read stderr");
    });
    page.text()
}

/// Nothing but documents goes to stdout, so the log tells.
fn lost_dumps(documents: u64) -> Vec<u8> {
    tracing::warn!(documents, "dumps were lost: nobody read stdout");
    Vec::new()
}

fn panicked(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    let payload = panic.payload();
    let why = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(at, why, backtrace, "panicked");
}

/// Text that is put together in memory.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> Vec<u8> {
        let bytes = self.0.lock();
        bytes.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut page = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        page.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Times are UTC with microseconds (RFC 3339). There are no colours, so that a journal and a terminal show the same.
fn subscriber<W>(
    config: LogConfig,
    writer: W,
) -> impl Subscriber + for<'span> LookupSpan<'span> + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // At debug other crates speak too, and then it matters who does.
    let layer = fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        // It would go to stderr past the outlet, and a process whose stderr cannot be written would panic over it.
        .log_internal_errors(false)
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
    use super::*;

    fn config(level: Level, json: bool) -> LogConfig {
        LogConfig {
            level,
            json,
            json_dumps: json,
        }
    }

    #[test]
    fn the_last_warning_is_remembered_whatever_is_logged() {
        let last = LastFault::default();
        let page = Page::default();
        let subscriber = subscriber(config(Level::ERROR, false), move || page.clone())
            .with(last.clone().with_filter(LevelFilter::WARN));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(why = "it is full", lines = 3, "no room");
            tracing::info!("all is well");
        });
        let words = last.get().map(|fault| fault.words);
        assert_eq!(words.as_deref(), Some("no room; why: it is full; lines: 3"));
    }

    fn logged(level: Level, json: bool, log: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        tracing::subscriber::with_default(
            subscriber(config(level, json), move || writer.clone()),
            log,
        );
        String::from_utf8(page.text()).unwrap()
    }

    #[test]
    fn lost_lines_are_told_in_the_log_s_own_format_at_any_level() {
        for level in [Level::ERROR, Level::INFO] {
            let text = lost_lines(config(level, true), 7);
            let line: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(
                (&line["level"], &line["lines"]),
                (&"WARN".into(), &7.into())
            );
            let text = lost_lines(config(level, false), 7);
            let text = String::from_utf8(text).unwrap();
            assert!(
                text.contains("WARN log lines were lost") && text.ends_with("lines=7\n"),
                "{text}"
            );
        }
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
