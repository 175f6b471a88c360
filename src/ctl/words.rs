//! Values as people read them: in plain characters, whatever stands in Consul.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::decide::lag::Arrival;
use crate::decide::timing::moment_ms;
use crate::plain;

/// `2026-11-21 14:03:12 UTC`, of milliseconds since the epoch.
pub(super) fn moment(ms: u64) -> String {
    utc(&humantime::format_rfc3339_seconds(shown(ms)))
}

/// `2026-11-21 14:03:12.345 UTC`; without the milliseconds where an older agent wrote seconds alone.
pub(crate) fn exact_moment(ms: u64, seconds: u64) -> String {
    match ms {
        0 => moment(moment_ms(ms, seconds)),
        _ => utc(&humantime::format_rfc3339_millis(shown(ms))),
    }
}

fn shown(ms: u64) -> SystemTime {
    // The last moment that the format can show.
    UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_999))
}

fn utc(text: &impl ToString) -> String {
    let text = text.to_string();
    format!("{} UTC", text.trim_end_matches('Z').replace('T', " "))
}

/// `0.4 s`, `12 s`, `3 min`, `2 h`, `5 d`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..10 if span.subsec_millis() < 100 => format!("{seconds} s"),
        0..10 => format!("{seconds}.{} s", span.subsec_millis() / 100),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How late rows arrive, or for how long they have not arrived: `0.0 s`, `stopped for 12 s`.
pub(crate) fn lateness(arrival: Arrival, ms: u64) -> String {
    let time = match ms {
        0..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => span(Duration::from_millis(ms)),
    };
    match arrival {
        Arrival::Arriving => time,
        Arrival::Stalled => format!("stalled for {time}"),
        Arrival::Stopped => format!("stopped for {time}"),
        Arrival::Disconnected => format!("no link for {time}"),
        Arrival::Silent => format!("silent for {time}"),
    }
}

/// `1 row`, `12 rows`.
pub(crate) fn rows(rows: u64) -> String {
    match rows {
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    }
}

/// From one moment to another, in milliseconds since the epoch, on clocks that may not be the same.
pub(super) fn between(at_ms: u64, now_ms: u64) -> String {
    span(Duration::from_millis(now_ms.saturating_sub(at_ms)))
}

/// The time since then, on a clock that may be another than the writer's.
pub(super) fn ago(at_ms: u64, now_ms: u64) -> String {
    format!("{} ago", between(at_ms, now_ms))
}

/// On one line, without logins and hidden characters; blanks and ends of lines between words become one blank.
pub(crate) fn clean(text: &str) -> String {
    let words: Vec<&str> = text
        .split([' ', '\t', '\r', '\n'])
        .filter(|word| !word.is_empty())
        .collect();
    plain::line(&words.join(" "))
}

/// At most so many characters, the middle left out.
pub(super) fn short(text: &str, width: usize) -> String {
    let text = clean(text);
    let length = text.chars().count();
    if length <= width {
        return text;
    }
    let tail = (width.saturating_sub(2)) / 2;
    let head = width.saturating_sub(2) - tail;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{start}..{end}")
}

/// Lines of at most `width` characters, all but the first indented; words that are too long are cut.
pub(crate) fn wrapped(first: &str, indent: usize, text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = format!("{first:<indent$}");
    let mut used = line.chars().count();
    let mut empty = true;
    let room = width.saturating_sub(indent).max(1);
    for word in clean(text).split(' ').filter(|word| !word.is_empty()) {
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(room) {
            if !empty && used + 1 + piece.len() > width {
                out.push_str(line.trim_end());
                out.push('\n');
                line = " ".repeat(indent);
                used = indent;
                empty = true;
            }
            if !empty {
                line.push(' ');
                used += 1;
            }
            line.extend(piece);
            used += piece.len();
            empty = false;
        }
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_long_as_they_matter() {
        for (ms, text) in [
            (0, "0 s"),
            (40, "0 s"),
            (400, "0.4 s"),
            (9_999, "9.9 s"),
            (10_500, "10 s"),
            (119_000, "119 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
        assert_eq!(ago(5, 3), "0 s ago");
        assert_eq!(ago(3_200, 5_000), "1.8 s ago");
    }

    #[test]
    fn what_does_not_arrive_is_never_shown_as_a_lag() {
        use Arrival::{Arriving, Disconnected, Silent, Stalled, Stopped};
        for (arrival, ms, text) in [
            (Arriving, 0, "0.0 s"),
            (Arriving, 1_299, "1.2 s"),
            (Arriving, 12_300, "12 s"),
            (Stalled, 2_000, "stalled for 2.0 s"),
            (Stopped, 12_300, "stopped for 12 s"),
            (Disconnected, 119_000, "no link for 119 s"),
            (Silent, 7_100_000, "silent for 118 min"),
        ] {
            assert_eq!(lateness(arrival, ms), text);
        }
    }

    #[test]
    fn moments_are_shown_whatever_they_are() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(u64::MAX), "9999-12-31 23:59:59 UTC");
        assert_eq!(exact_moment(1_234, 1), "1970-01-01 00:00:01.234 UTC");
        assert_eq!(exact_moment(u64::MAX, 1), "9999-12-31 23:59:59.999 UTC");
        // Of an older agent, which knew no milliseconds.
        assert_eq!(exact_moment(0, 1), "1970-01-01 00:00:01 UTC");
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(
            clean("a\u{1b}[2Jb\r\n c\u{202e}"),
            "a\\u{1b}[2Jb c\\u{202e}"
        );
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(short("abcdefghij", 10), "abcdefghij");
        assert_eq!(short("abcdefghijk", 10), "abcd..hijk");
    }

    #[test]
    fn text_wraps_and_words_that_are_too_long_are_cut() {
        assert_eq!(wrapped("  a", 4, "bb cc dd", 9), "  a bb cc\n    dd\n");
        assert_eq!(wrapped("", 2, "abcdefgh", 6), "  abcd\n  efgh\n");
        assert_eq!(wrapped("x", 2, "", 6), "x\n");
    }
}
