//! Request → answer. Status and body follow from what the loop has shown and from the clock, which is read when all else
//! is known.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::Shown;
use super::valve::TrueUntil;
use crate::decide::check::{Account, Check, Snapshot, Wish};
use crate::decide::timing::Tick;
use crate::plain;

/// The methods that every page has. Load balancers ask with each of them (HAProxy's `httpchk` with OPTIONS unless it is told
/// otherwise), so the status is the same for all, and the body only goes with GET.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    /// A check, and the status that says no.
    Check(Check, StatusCode),
    /// That the agent answers: orchestrator's `lb-check`, which says the same on every node.
    Constant,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    NotFound,
    WrongMethod,
    BadRequest(String),
}

/// What is sent.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: StatusCode,
    body: String,
    /// It is not to be sent later.
    until: Option<Tick>,
}

/// What a check says besides its status.
#[derive(Serialize)]
struct Body<'a> {
    check: &'a str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    cluster: &'a str,
    #[serde(flatten)]
    account: Account,
}

/// Answers a request by what the loop has shown last, and says until when the answer may be sent.
pub(super) fn answer<B>(
    request: &Request<B>,
    shown: &Shown,
    true_until: &TrueUntil,
) -> Response<Full<Bytes>> {
    let (method, uri) = (request.method(), request.uri());
    let page = page(method, uri.path(), uri.query());
    let snapshot = shown.snapshot.load();
    let ran_at = shown.ran_at();
    // Read behind what it is compared with, and nothing is waited for from here on.
    let now = shown.clock.now();
    let reply = match page {
        Ok(page) => reply(page, uri.path(), &shown.cluster, &snapshot, ran_at, now),
        Err(refusal) => refusal.reply(),
    };
    if let Some(until) = reply.until {
        true_until.is_at_most(until);
    }
    reply.response(method)
}

/// Which page is asked for.
fn page(method: &Method, path: &str, query: Option<&str>) -> Result<Page, Refusal> {
    let no = StatusCode::SERVICE_UNAVAILABLE;
    let page = match path {
        "/primary" | "/master" | "/read-write" | "/leader" => Page::Check(Check::Master, no),
        "/replica" => Page::Check(Check::Replica(wish(query)?), no),
        "/read-only" => Page::Check(Check::Reads(wish(query)?), no),
        "/health" => Page::Check(Check::Health, no),
        "/liveness" => Page::Check(Check::Liveness, no),
        "/readiness" => Page::Check(Check::Readiness, no),
        "/api/leader-check" => Page::Check(Check::Master, StatusCode::NOT_FOUND),
        "/api/raft-health" => Page::Check(Check::Consensus, StatusCode::INTERNAL_SERVER_ERROR),
        "/api/lb-check" => Page::Constant,
        other => match other.strip_prefix("/api/leader-check/") {
            Some(code) => Page::Check(Check::Master, status(code)?),
            None => return Err(Refusal::NotFound),
        },
    };
    let takes_wishes = matches!(page, Page::Check(Check::Replica(_) | Check::Reads(_), _));
    if !takes_wishes && query.is_some_and(|query| !query.is_empty()) {
        return Err(Refusal::BadRequest(format!("{path} takes no parameters")));
    }
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => Ok(page),
        _ => Err(Refusal::WrongMethod),
    }
}

/// The status that the asker wants for no.
fn status(code: &str) -> Result<StatusCode, Refusal> {
    let found = code.parse().ok().filter(|code| (400..=599).contains(code));
    let found = found.and_then(|code: u16| StatusCode::from_u16(code).ok());
    found.ok_or_else(|| {
        let words = "the status for no is a number from 400 to 599, such as /api/leader-check/503";
        Refusal::BadRequest(words.to_owned())
    })
}

/// `lag=ROWS&idle=5s`. Anything else is a mistake: a limit that is misspelt would be none.
fn wish(query: Option<&str>) -> Result<Wish, Refusal> {
    let mut wish = Wish::default();
    let parameters = query.unwrap_or_default().split('&');
    for parameter in parameters.filter(|it| !it.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let is_new = match name {
            "lag" => wish.lag.replace(rows(value)?).is_none(),
            "idle" => wish.idle.replace(span(value)?).is_none(),
            _ => {
                let words = "the parameters are lag=ROWS and idle=DURATION";
                return Err(Refusal::BadRequest(words.to_owned()));
            }
        };
        if !is_new {
            return Err(Refusal::BadRequest(format!("{name} is given twice")));
        }
    }
    Ok(wish)
}

fn rows(value: &str) -> Result<u64, Refusal> {
    let words = "lag is a number of rows, such as lag=100";
    let rows = value.parse().ok();
    rows.ok_or_else(|| Refusal::BadRequest(words.to_owned()))
}

fn span(value: &str) -> Result<Duration, Refusal> {
    let words = "idle is a duration with its unit, such as idle=5s or idle=500ms";
    let span = humantime::parse_duration(value).ok();
    let span = span.filter(|_| value.ends_with(|c: char| c.is_ascii_alphabetic()));
    span.ok_or_else(|| Refusal::BadRequest(words.to_owned()))
}

/// What a page says at `now`.
fn reply(
    page: Page,
    path: &str,
    cluster: &str,
    snapshot: &Snapshot,
    ran_at: Tick,
    now: Tick,
) -> Reply {
    let (check, otherwise) = match page {
        Page::Check(check, otherwise) => (check, otherwise),
        Page::Constant => return Reply::new(StatusCode::OK, "\"OK\"".to_owned()),
    };
    let answer = snapshot.answer(check, ran_at, now);
    let status = if answer.is_ok() {
        StatusCode::OK
    } else {
        otherwise
    };
    let body = Body {
        check: path,
        ok: answer.is_ok(),
        why: answer.err(),
        cluster,
        account: snapshot.account(now),
    };
    // Nothing in it can fail to be written.
    let ok = body.ok;
    let body = serde_json::to_string(&body).unwrap_or_default();
    Reply {
        until: snapshot.stands_until(check).filter(|_| ok),
        ..Reply::new(status, body)
    }
}

impl Refusal {
    fn reply(self) -> Reply {
        let (status, words) = match self {
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "there is no such page, see docs/HTTP.md for those that there are".to_owned(),
            ),
            Self::WrongMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                format!("the methods are {METHODS}"),
            ),
            Self::BadRequest(words) => (StatusCode::BAD_REQUEST, words),
        };
        Reply::new(status, json!({ "error": words }).to_string())
    }
}

impl Reply {
    fn new(status: StatusCode, body: String) -> Self {
        Self {
            status,
            body,
            until: None,
        }
    }

    fn response(self, method: &Method) -> Response<Full<Bytes>> {
        let asks_for_methods = *method == Method::OPTIONS;
        let body = if asks_for_methods {
            String::new()
        } else {
            plain::json(&self.body) + "\n"
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::METHOD_NOT_ALLOWED || asks_for_methods {
            headers.insert(ALLOW, HeaderValue::from_static(METHODS));
        }
        response
    }
}

#[cfg(test)]
mod tests;
