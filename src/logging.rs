//! Logs go to stderr, and nothing else does; stdout belongs to the state dumps.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

mod last;

use crate::config::LogConfig;
use crate::outlet::{Descriptor, Outlet};
use crate::plain;

/// How much of the log waits for its reader, in bytes: some thousand lines, which is more than a change of hands writes
/// at `LOG_LEVEL=debug`, and little beside what the agent's own code takes.
const LOG_BOUND: usize = 1 << 20;
/// How much of the dumps waits for its reader, in bytes: dozens of documents, of which the last one matters.
const DUMPS_BOUND: usize = 1 << 20;
/// How long the agent waits for each reader when the process ends. A reader that reads at all takes a queue in
/// milliseconds; a reader that does not must not keep the supervisor from starting the next agent within the lease.
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

/// The lines and dumps of the agent that nobody will see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Lines of the log.
    pub log_lines: u64,
    /// Dumps, each of them one document.
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
    let page = Descriptor(rustix::stdio::stderr());
    let paper = Paper {
        page,
        reader: Reader::Anybody,
        json: config.json,
    };
    let _ = subscriber(config, Reader::Anybody, paper).try_init();
}

/// Starts logging for an agent, which waits for no reader; a second call makes outlets that get no logs.
///
/// # Errors
/// There is no thread to be had.
pub fn start_agent(config: LogConfig) -> io::Result<Output> {
    // The descriptors are those of the process, and open: the standard library sees to that before `main`.
    let stderr = Descriptor(rustix::stdio::stderr());
    let stdout = Descriptor(rustix::stdio::stdout());
    let reader = Reader::of(std::env::var("JOURNAL_STREAM").ok().as_deref(), stderr.0);
    let log = Outlet::open(
        "log",
        LOG_BOUND,
        stderr,
        Box::new(move |lines| lost_lines(config, reader, lines)),
    )?;
    let dumps = Outlet::open("dumps", DUMPS_BOUND, stdout, Box::new(lost_dumps))?;
    let paper = Paper {
        page: log.clone(),
        reader,
        json: config.json,
    };
    let last_fault = LastFault::default();
    let _ = remembering(&last_fault, subscriber(config, reader, paper)).try_init();
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

/// The reader of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// A terminal, a file, a collector: it needs the time.
    Anybody,
    /// systemd's journal, which knows when a line came, and takes a priority in front of it (sd-daemon(3)).
    Journal,
}

impl Reader {
    /// The journal says by `JOURNAL_STREAM` which file it reads, as device and inode, because a service may lead its output
    /// elsewhere afterwards (systemd.exec(5)).
    fn of(stream: Option<&str>, stderr: impl AsFd) -> Self {
        let (Some((device, inode)), Ok(file)) = (
            stream.and_then(|stream| stream.split_once(':')),
            rustix::fs::fstat(stderr),
        ) else {
            return Self::Anybody;
        };
        if device == file.st_dev.to_string() && inode == file.st_ino.to_string() {
            Self::Journal
        } else {
            Self::Anybody
        }
    }
}

/// Where events are written.
#[derive(Clone)]
struct Paper<P> {
    page: P,
    reader: Reader,
    json: bool,
}

/// One event's text at a time.
struct Pen<P> {
    page: P,
    /// What the line begins with.
    mark: &'static str,
    json: bool,
}

impl<P: Write + Clone> MakeWriter<'_> for Paper<P> {
    type Writer = Pen<P>;

    fn make_writer(&self) -> Pen<P> {
        Pen {
            page: self.page.clone(),
            mark: "",
            json: self.json,
        }
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> Pen<P> {
        let mark = match self.reader {
            Reader::Anybody => "",
            Reader::Journal => priority(*event.level()),
        };
        Pen {
            page: self.page.clone(),
            mark,
            json: self.json,
        }
    }
}

/// syslog's numbers: error, warning, informational, debug.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

impl<P: Write> Write for Pen<P> {
    /// An event is one line, whatever is in it: another line would be an event that never was, or to the journal an entry of
    /// another priority.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let event = String::from_utf8_lossy(bytes);
        let event = event.trim_end_matches('\n');
        let words = if self.json {
            plain::json(event)
        } else {
            plain::line(event)
        };
        let line = format!("{}{words}\n", self.mark);
        self.page.write_all(line.as_bytes())?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of the log in the log's own format, at any level: no reader may overlook that lines are missing.
fn lost_lines(config: LogConfig, reader: Reader, lines: u64) -> Vec<u8> {
    let level = config.level.max(Level::WARN);
    let page = Page::default();
    let paper = Paper {
        page: page.clone(),
        reader,
        json: config.json,
    };
    let subscriber = subscriber(LogConfig { level, ..config }, reader, paper);
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(lines, "log lines were lost: nobody read stderr");
    });
    page.text()
}

/// Nothing but documents goes to stdout, so the log says how many are missing.
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

/// Times are UTC with microseconds (RFC 3339); the journal has its own. There are no colours, so that a journal and a
/// terminal show the same.
fn subscriber<W>(
    config: LogConfig,
    reader: Reader,
    writer: W,
) -> impl Subscriber + for<'span> LookupSpan<'span> + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // At debug other crates speak too, and then a line says which.
    let layer = fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        // It would go to stderr past the outlet, and a process whose stderr cannot be written would panic over it.
        .log_internal_errors(false)
        .with_target(config.level >= Level::DEBUG);
    let layer = if config.json {
        let layer = layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        match reader {
            Reader::Anybody => layer.boxed(),
            Reader::Journal => layer.without_time().boxed(),
        }
    } else {
        match reader {
            Reader::Anybody => layer.boxed(),
            Reader::Journal => layer.without_time().boxed(),
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(filter(config.level)))
}

/// Warnings and errors are remembered besides, whatever the level of the log.
fn remembering<S>(last_fault: &LastFault, subscriber: S) -> impl Subscriber + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    subscriber.with(last_fault.clone().with_filter(LevelFilter::WARN))
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
pub(crate) mod tests {
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
        let paper = Paper {
            page: Page::default(),
            reader: Reader::Anybody,
            json: false,
        };
        let subscriber = subscriber(config(Level::ERROR, false), Reader::Anybody, paper);
        tracing::subscriber::with_default(remembering(&last, subscriber), || {
            tracing::error!("nobody listens");
            let words = last.get().map(|fault| fault.words);
            assert_eq!(words.as_deref(), Some("nobody listens"));
            tracing::warn!(why = "it is full", lines = 3, "no room");
            tracing::info!("all is well");
        });
        let words = last.get().map(|fault| fault.words);
        assert_eq!(words.as_deref(), Some("no room; why: it is full; lines: 3"));
    }

    /// The lines that `log` writes at that level.
    pub(crate) fn logged(level: Level, json: bool, log: impl FnOnce()) -> String {
        logged_for(Reader::Anybody, level, json, log)
    }

    fn logged_for(reader: Reader, level: Level, json: bool, log: impl FnOnce()) -> String {
        let page = Page::default();
        let paper = Paper {
            page: page.clone(),
            reader,
            json,
        };
        tracing::subscriber::with_default(subscriber(config(level, json), reader, paper), log);
        String::from_utf8(page.text()).unwrap()
    }

    #[test]
    fn the_journal_gets_priorities_and_no_times() {
        let speak = || {
            tracing::error!("one");
            tracing::warn!("two\nlines");
            tracing::info!(key = 1, "three");
            tracing::debug!("four");
        };
        let text = logged_for(Reader::Journal, Level::DEBUG, false, speak);
        let own = concat!(env!("CARGO_CRATE_NAME"), "::logging::tests");
        let expected = format!(
            "<3>ERROR {own}: one\n<4> WARN {own}: two\\nlines\n<6> INFO {own}: three key=1\n<7>DEBUG {own}: four\n"
        );
        assert_eq!(text, expected);
        let text = logged_for(Reader::Journal, Level::WARN, true, speak);
        assert_eq!(
            text,
            "<3>{\"level\":\"ERROR\",\"message\":\"one\"}\n<4>{\"level\":\"WARN\",\"message\":\"two\\nlines\"}\n"
        );
    }

    #[test]
    fn an_event_is_one_line_of_plain_characters_without_logins() {
        let speak = || {
            let name = "a\n<3>forged\u{202e}\u{9b}\u{e0041}";
            tracing::warn!(who = %name, at = "http://u:SECRET@h:1", "no {name}, u:SECRET@h:1");
        };
        for (json, reader) in [
            (false, Reader::Anybody),
            (false, Reader::Journal),
            (true, Reader::Anybody),
            (true, Reader::Journal),
        ] {
            let text = logged_for(reader, Level::INFO, json, speak);
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(plain::is_hidden), "{text:?}");
            assert!(
                !text.contains("SECRET") && text.contains("(redacted)@h:1"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_journal_is_known_by_the_file_that_it_reads() {
        let (_, writer) = io::pipe().unwrap();
        let file = rustix::fs::fstat(&writer).unwrap();
        let stream = format!("{}:{}", file.st_dev, file.st_ino);
        assert_eq!(Reader::of(Some(&stream), &writer), Reader::Journal);
        let (_, other) = io::pipe().unwrap();
        assert_eq!(Reader::of(Some(&stream), &other), Reader::Anybody);
        for stream in [None, Some(""), Some("8:"), Some("nonsense")] {
            assert_eq!(Reader::of(stream, &writer), Reader::Anybody);
        }
    }

    #[test]
    fn lost_lines_are_told_in_the_log_s_own_format_at_any_level() {
        for level in [Level::ERROR, Level::INFO] {
            let text = lost_lines(config(level, true), Reader::Anybody, 7);
            let line: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(
                (&line["level"], &line["lines"]),
                (&"WARN".into(), &7.into())
            );
            let text = lost_lines(config(level, false), Reader::Anybody, 7);
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
