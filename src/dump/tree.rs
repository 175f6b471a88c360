//! What `SIGUSR2` prints for people: the whole document as an indented tree.

use std::time::Duration;

use serde_json::{Map, Value};

use super::Document;
use crate::ctl::words::clean;

/// Several values stand on one line up to so many characters, so that they fit on a terminal with their label. A single
/// value may be longer: words would lose by being cut.
const BESIDE: usize = 40;
const STEP: usize = 2;

/// The document, every value on a line of its own, or beside its like where several small ones fit. Points in time
/// (`since`, `..._at`) are seconds since the agent's start, as `now` is.
pub(super) fn text(document: &Document) -> String {
    let mut out = String::new();
    let parts = document.iter().map(|(key, value)| (*key, value));
    map(&mut out, 0, &parts.collect::<Vec<_>>());
    out
}

fn map(out: &mut String, indent: usize, parts: &[(&str, &Value)]) {
    let beside = parts.iter().filter(|(_, value)| short(value).is_some());
    let widest = beside.map(|(key, _)| key.chars().count()).max();
    for (key, value) in parts {
        let label = format!("{:indent$}{key}", "");
        entry(out, indent, &label, widest.unwrap_or(0) + indent, value);
    }
}

/// A label and what belongs to it: behind it where that is short, else below it.
fn entry(out: &mut String, indent: usize, label: &str, widest: usize, value: &Value) {
    if let Some(words) = short(value) {
        out.push_str(format!("{label:widest$}  {words}").trim_end());
        out.push('\n');
        return;
    }
    out.push_str(label);
    out.push('\n');
    match value {
        Value::Object(inner) => {
            let parts = inner.iter().map(|(key, value)| (key.as_str(), value));
            map(out, indent + STEP, &parts.collect::<Vec<_>>());
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let label = format!("{:width$}{}.", "", at + 1, width = indent + STEP);
                entry(out, indent + STEP, &label, 0, item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What stands behind its label: a single value, however long, or several that are short together.
fn short(value: &Value) -> Option<String> {
    inline(value).filter(|words| is_single(value) || words.chars().count() <= BESIDE)
}

fn is_single(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Object(inner) => inner.is_empty(),
        Value::Array(items) => items.is_empty(),
    }
}

/// On one line: a single value, or some that stand side by side.
fn inline(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("-".to_owned()),
        Value::Bool(true) => Some("yes".to_owned()),
        Value::Bool(false) => Some("no".to_owned()),
        Value::Number(number) => Some(number_words(number)),
        Value::String(text) if text.is_empty() => Some("\"\"".to_owned()),
        Value::String(text) => Some(clean(text)),
        Value::Array(items) if items.is_empty() => Some("none".to_owned()),
        Value::Object(inner) if inner.is_empty() => Some("none".to_owned()),
        Value::Array(items) => {
            let all = items.iter().all(is_single);
            let words = || items.iter().filter_map(inline).collect::<Vec<_>>();
            all.then(|| words().join(", "))
        }
        Value::Object(inner) => duration(inner).or_else(|| {
            let all = inner.values().all(is_single);
            let word = |(key, value)| Some(format!("{key}: {}", inline(value)?));
            let words = || inner.iter().filter_map(word).collect::<Vec<_>>();
            all.then(|| words().join(", "))
        }),
    }
}

/// A `Duration`, as serde writes it.
fn duration(map: &Map<String, Value>) -> Option<String> {
    let part = |name| map.get(name).and_then(Value::as_u64);
    let (seconds, nanos) = (part("secs")?, part("nanos")?);
    let nanos = u32::try_from(nanos).ok().filter(|_| map.len() == 2)?;
    let whole = Duration::new(seconds, nanos);
    Some(format!("{:.3} s", whole.as_secs_f64()))
}

/// Milliseconds are enough for a person.
fn number_words(number: &serde_json::Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(seconds) => format!("{seconds:.3}"),
        None => number.to_string(),
    }
}
