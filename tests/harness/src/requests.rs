//! Counts the HTTP requests that pass through a link.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::process::lock;

/// Kinds of requests that are told apart; Consul's agents use about ten.
const KINDS: usize = 64;
/// Longer than any request line of ours.
const LINE_LIMIT: usize = 4096;

/// How many requests of each kind have passed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counts {
    /// A watcher of one connection.
    pub(crate) fn connection(&self) -> Counting {
        Counting {
            counts: self.clone(),
            line: Vec::new(),
        }
    }

    pub(crate) fn so_far(&self) -> BTreeMap<String, u64> {
        lock(&self.0).clone()
    }

    fn add(&self, kind: String) {
        let mut counts = lock(&self.0);
        if counts.len() < KINDS || counts.contains_key(&kind) {
            *counts.entry(kind).or_default() += 1;
        } else {
            *counts.entry("other".to_owned()).or_default() += 1;
        }
    }
}

/// What is sent over one connection.
pub(crate) struct Counting {
    counts: Counts,
    /// The line that is arriving; a request's line follows the body before it without a break.
    line: Vec<u8>,
}

impl Counting {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                if let Some(kind) = kind_of(&self.line) {
                    self.counts.add(kind);
                }
                self.line.clear();
            } else {
                if self.line.len() == LINE_LIMIT {
                    self.line.drain(..LINE_LIMIT / 2);
                }
                self.line.push(*byte);
            }
        }
    }
}

/// The method and the path without the caller's own names, if the line ends as a request's does.
fn kind_of(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let line = line.strip_suffix(" HTTP/1.1\r")?;
    let (method, place) = ["GET", "PUT", "POST", "DELETE"]
        .into_iter()
        .filter_map(|method| Some((method, line.rfind(&format!("{method} /"))?)))
        .max_by_key(|(_, place)| *place)?;
    let target = line.get(place + method.len() + 1..)?;
    let path = target.split('?').next()?;
    let mut kept = String::new();
    for part in path.split('/').skip(1) {
        let is_word = part.bytes().all(|byte| byte.is_ascii_lowercase()) || part == "v1";
        if !is_word || kept == "/v1/kv" {
            break;
        }
        kept.push('/');
        kept.push_str(part);
    }
    Some(format!("{method} {kept}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind_however_they_arrive() {
        let stream = b"PUT /v1/txn HTTP/1.1\r\nhost: x\r\n\r\n[{\"KV\":1}]GET /v1/kv/tarsec/a?index=3 HTTP/1.1\r\n\r\n\
            PUT /v1/txn HTTP/1.1\r\n\r\n{}PUT /v1/session/renew/0a1b-2 HTTP/1.1\r\n\r\n";
        for size in [1, 7, stream.len()] {
            let counts = Counts::default();
            let mut connection = counts.connection();
            stream.chunks(size).for_each(|chunk| connection.feed(chunk));
            let expected = [
                ("GET /v1/kv", 1),
                ("PUT /v1/session/renew", 1),
                ("PUT /v1/txn", 2),
            ];
            assert_eq!(
                counts.so_far(),
                expected
                    .map(|(kind, count)| (kind.to_owned(), count))
                    .into()
            );
        }
    }

    #[test]
    fn what_is_not_http_is_not_counted_and_not_kept() {
        let counts = Counts::default();
        let mut connection = counts.connection();
        connection.feed(&vec![0xce; 1 << 20]);
        assert!(connection.line.len() <= LINE_LIMIT);
        assert!(counts.so_far().is_empty());
    }
}
