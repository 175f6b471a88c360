//! HTTP towards Consul: one request, one deadline, one bounded answer.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::advice::{Advisor, about_status};
use super::clients::{self, Clients};
use super::error::{Advice, BodyError, ConsulError, SetupError};
use super::throttle::{Lane, Throttle};
use crate::config::ConsulConfig;
use crate::decide::ids::SessionId;
use crate::secrets::Renewable;

/// The longest answer that is read, unless more or less is asked for. A value is at most 512 KiB, 700 KiB in base64
/// (<https://developer.hashicorp.com/consul/docs/agent/config/config-files#kv_max_value_size>); the rest is room for lists
/// from the catalog.
const ANSWER_LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// Consul's own words are quoted up to this length: enough for its sentences, too short for a proxy's HTML page.
const MESSAGE_LIMIT_CHARS: usize = 300;

/// The longest that Consul is asked to hold a request; with its jitter of a sixteenth 25 s. Proxies end held requests after
/// 30 s and more, and so may newer Consuls.
const HOLD_LIMIT: Duration = Duration::from_millis(23_500);

/// After a held request that failed at once, how long no other is sent: enough for a proxy that lets none be held.
const HOLD_PITCH: Duration = Duration::from_millis(500);

/// A kept-alive connection to Consul, with what every request carries.
pub(super) struct Wire {
    clients: Renewable<Clients>,
    /// Without a slash at its end.
    base: String,
    namespace: Option<String>,
    request_timeout: Duration,
    advisor: Advisor,
    throttle: Throttle,
}

#[derive(Clone)]
pub(super) struct Call {
    /// Completes "could not …".
    pub(super) what: String,
    method: Method,
    path: String,
    query: Vec<String>,
    body: Vec<u8>,
    /// Added to the request timeout: how long Consul was asked to wait.
    hold: Duration,
    /// What an ACL policy must have for this.
    rule: String,
    lane: Lane,
    /// No more of the answer is read.
    limit_bytes: usize,
    /// A longer answer is told by its index alone; it is no error.
    cut: bool,
}

impl Call {
    /// Reads `path`, whose parts are [encoded](encode) already.
    pub(super) fn get(what: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            body: Vec::new(),
            hold: Duration::ZERO,
            rule: String::new(),
            lane: Lane::Others,
            limit_bytes: ANSWER_LIMIT_BYTES,
            cut: false,
        }
    }

    /// Writes `body` to `path`, whose parts are [encoded](encode) already.
    pub(super) fn put(what: impl Into<String>, path: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            method: Method::PUT,
            body,
            ..Self::get(what, path)
        }
    }

    /// Adds a query parameter, encoded already.
    pub(super) fn query(mut self, parameter: impl Into<String>) -> Self {
        self.query.push(parameter.into());
        self
    }

    /// The rule of an ACL policy that allows this; part of the error for a token without it.
    pub(super) fn allowed_by(mut self, rule: impl Into<String>) -> Self {
        self.rule = rule.into();
        self
    }

    /// Lets Consul hold the request until something has changed since index `after`, at most for `wait` and a sixteenth
    /// (Consul's jitter), and never longer than 25 s; with `after` 0 it is answered at once.
    pub(super) fn once_past(self, after: u64, wait: Duration) -> Self {
        if after == 0 {
            return self;
        }
        // 0 would be Consul's default of five minutes.
        let wait = wait.clamp(Duration::from_millis(1), HOLD_LIMIT);
        self.query(format!("index={after}"))
            .query(format!("wait={}ms", wait.as_millis()))
            .held_for(wait.saturating_add(wait / 16))
    }

    /// Reads a longer or a shorter answer than most.
    pub(super) fn up_to(mut self, limit_bytes: usize) -> Self {
        self.limit_bytes = limit_bytes;
        self
    }

    /// Reads no more than this, and takes a longer answer for one [without its body](Answer::cut).
    pub(super) fn cut_at(mut self, limit_bytes: usize) -> Self {
        self.cut = true;
        self.up_to(limit_bytes)
    }

    /// Sends it in another lane than [`Lane::Others`].
    pub(super) fn in_lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// Consul may hold the answer back for this long before its deadline begins.
    pub(super) fn held_for(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }
}

/// What Consul answered, other than a denial.
pub(super) struct Answer {
    /// Completes "could not …".
    pub(super) what: String,
    /// The HTTP status.
    pub(super) code: u16,
    /// `X-Consul-Index`.
    pub(super) index: Option<u64>,
    /// As long as the call allows, at most.
    pub(super) body: Vec<u8>,
    /// The body was longer than the call allows, and is not here.
    pub(super) cut: bool,
}

impl Answer {
    /// The body, if the status is 200.
    pub(super) fn ok(self) -> Result<Self, ConsulError> {
        if self.code == 200 {
            Ok(self)
        } else {
            Err(self.unexpected())
        }
    }

    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ConsulError> {
        serde_json::from_slice(&self.body).map_err(|source| self.senseless(source))
    }

    /// Whether the body has these words in it.
    pub(super) fn says(&self, words: &str) -> bool {
        self.body
            .windows(words.len())
            .any(|part| part == words.as_bytes())
    }

    /// The error for a status that this request should not get.
    pub(super) fn unexpected(self) -> ConsulError {
        let message = quoted(&self.body);
        ConsulError::Status {
            advice: about_status(&message),
            message,
            what: self.what,
            code: self.code,
        }
    }

    /// The error for a body that cannot be read.
    pub(super) fn senseless(&self, source: impl Into<BodyError>) -> ConsulError {
        ConsulError::Body {
            what: self.what.clone(),
            source: source.into(),
        }
    }
}

impl Wire {
    pub(super) fn new(
        config: &ConsulConfig,
        request_timeout: Duration,
        lease: Duration,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            throttle: Throttle::new(lease),
            clients: clients::renewable(config)?,
            base: clients::base_of(config)?,
            namespace: config.namespace.as_deref().map(encode),
            request_timeout,
            advisor: Advisor::new(config),
        })
    }

    /// Whether a call may be sent now.
    ///
    /// # Errors
    /// [`ConsulError::Throttled`].
    pub(super) fn admit(&self, lane: Lane, what: &str) -> Result<(), ConsulError> {
        self.throttle
            .admit(lane)
            .map_err(|code| ConsulError::Throttled {
                what: what.to_owned(),
                code,
            })
    }

    /// The error of a call in [`Lane::Others`] that went past this wire; a status that asks for fewer requests closes the lane.
    pub(super) fn heard(&self, error: ConsulError) -> ConsulError {
        match error {
            ConsulError::Status {
                what, code: 429, ..
            } => {
                self.throttle.refused(Lane::Others, 429);
                ConsulError::Throttled { what, code: 429 }
            }
            other @ (ConsulError::Status { .. }
            | ConsulError::Denied { .. }
            | ConsulError::Unreachable { .. }
            | ConsulError::Timeout { .. }
            | ConsulError::Throttled { .. }
            | ConsulError::Body { .. }
            | ConsulError::TooLong { .. }
            | ConsulError::Key { .. }) => other,
        }
    }

    /// Encoded; empty for none.
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// What requests are sent with now.
    pub(super) fn clients(&self) -> Arc<Clients> {
        self.clients.get()
    }

    /// The deadline of a request that Consul answers at once.
    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Sends the request and reads the whole answer. A denial is an error here, any other status is for the caller.
    ///
    /// # Errors
    /// [`ConsulError::Unreachable`], [`ConsulError::Timeout`], [`ConsulError::TooLong`], [`ConsulError::Denied`].
    pub(super) async fn send(&self, call: Call) -> Result<Answer, ConsulError> {
        let rule = call.rule.clone();
        let answer = self.send_unadvised(call).await;
        answer.map_err(|error| self.advise(error, &rule))
    }

    /// The error with what to do about it; `rule` is what an ACL policy needs for what was attempted. Every error comes by
    /// here, so what was refused is read again.
    pub(super) fn advise(&self, error: ConsulError, rule: &str) -> ConsulError {
        if self.is_refusal(&error) {
            self.clients.refused();
        }
        self.advisor.advise(error, rule)
    }

    /// A denial, or over TLS any connection that ended without an answer: a server that refuses a certificate may end
    /// the connection before its reason arrives.
    fn is_refusal(&self, error: &ConsulError) -> bool {
        match error {
            ConsulError::Denied { .. } => true,
            ConsulError::Unreachable { .. } => self.base.starts_with("https:"),
            ConsulError::Timeout { .. }
            | ConsulError::Status { .. }
            | ConsulError::Throttled { .. }
            | ConsulError::Body { .. }
            | ConsulError::TooLong { .. }
            | ConsulError::Key { .. } => false,
        }
    }

    async fn send_unadvised(&self, call: Call) -> Result<Answer, ConsulError> {
        self.admit(call.lane, &call.what)?;
        let after = self.request_timeout.saturating_add(call.hold);
        let what = call.what.clone();
        let answer = tokio::time::timeout(after, self.exchange(call))
            .await
            .map_err(|_| ConsulError::Timeout { what, after })??;
        if denies(answer.code, &answer) {
            return Err(ConsulError::Denied {
                message: quoted(&answer.body),
                code: answer.code,
                what: answer.what,
                advice: Advice::default(),
            });
        }
        Ok(answer)
    }

    async fn exchange(&self, call: Call) -> Result<Answer, ConsulError> {
        let url = self.url(&call);
        let Call {
            what,
            method,
            body,
            limit_bytes,
            cut,
            lane,
            hold,
            ..
        } = call;
        let mut response = match self
            .clients()
            .http
            .request(method, url)
            .body(body)
            .send()
            .await
        {
            Ok(response) => response,
            Err(source) => return Err(unreachable(what, source)),
        };
        let code = response.status().as_u16();
        let index = response
            .headers()
            .get("x-consul-index")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        let is_held = !hold.is_zero();
        if self.throttle.hear(lane, code, response.headers(), is_held) {
            return Err(ConsulError::Throttled { what, code });
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > limit_bytes => {
                    if !cut {
                        return Err(ConsulError::TooLong { what, limit_bytes });
                    }
                    return Ok(Answer {
                        what,
                        code,
                        index,
                        body: Vec::new(),
                        cut,
                    });
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => {
                    return Ok(Answer {
                        what,
                        code,
                        index,
                        body,
                        cut: false,
                    });
                }
                Err(source) => return Err(unreachable(what, source)),
            }
        }
    }

    fn url(&self, call: &Call) -> String {
        let mut url = format!("{}{}", self.base, call.path);
        let namespace = self
            .namespace
            .as_ref()
            .map(|namespace| format!("ns={namespace}"));
        for (at, parameter) in call.query.iter().chain(&namespace).enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(parameter);
        }
        url
    }
}

/// Asks the held question, and where that fails the short one, which is not held: anything on the way may end a held
/// request, so its failure is no news about Consul. `wait` is how long Consul was to hold it.
///
/// # Errors
/// What the short question's failure was.
pub(super) async fn or_at_once<T>(
    wait: Duration,
    held: impl Future<Output = Result<T, ConsulError>>,
    short: impl Future<Output = Result<T, ConsulError>>,
) -> Result<T, ConsulError> {
    let pitch = tokio::time::sleep(wait.min(HOLD_PITCH));
    match held.await {
        Ok(answer) => Ok(answer),
        Err(_) => {
            pitch.await;
            short.await
        }
    }
}

/// The URL stays out of the error: `what` says more, and an address may carry a password.
fn unreachable(what: String, source: reqwest::Error) -> ConsulError {
    ConsulError::Unreachable {
        what,
        advice: Advice::default(),
        source: source.without_url().into(),
    }
}

/// Consul says no with 403; some of its endpoints wrap the same words into a 500. 401 is a proxy in front of it.
fn denies(code: u16, answer: &Answer) -> bool {
    match code {
        401 | 403 => true,
        500 => is_denial_in(answer),
        _ => false,
    }
}

fn is_denial_in(answer: &Answer) -> bool {
    DENIALS.iter().any(|words| answer.says(words))
}

/// The words of Consul's `acl.ErrPermissionDenied` and `acl.ErrNotFound`.
const DENIALS: [&str; 2] = ["Permission denied", "ACL not found"];

/// Whether this error of a transaction's operation is a denial.
pub(super) fn is_denial(words: &str) -> bool {
    DENIALS.iter().any(|denial| words.contains(denial))
}

/// Consul's words, bounded, on one line.
pub(super) fn quoted(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.trim().chars().take(MESSAGE_LIMIT_CHARS);
    line.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One part of a path, or a query parameter's value: everything but RFC 3986's unreserved characters is escaped.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// A key as a path. Only a prefix may end in a slash.
///
/// Parts that are empty or made of dots are refused: the URL parser on this side and the router on Consul's take them
/// out. A transaction carries keys in its body, so it would write another key than the request reads.
///
/// # Errors
/// [`ConsulError::Key`].
pub(super) fn key_path(what: &str, key: &str) -> Result<String, ConsulError> {
    let parts = key.strip_suffix('/').unwrap_or(key).split('/');
    let mut path = String::from("/v1/kv");
    for part in parts {
        if part.is_empty() || part == "." || part == ".." {
            return Err(ConsulError::Key {
                what: what.to_owned(),
                key: key.to_owned(),
            });
        }
        path.push('/');
        path.push_str(&encode(part));
    }
    if key.ends_with('/') {
        path.push('/');
    }
    Ok(path)
}

/// One entry of the store, as Consul writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    /// The whole key.
    pub(super) key: String,
    /// Base64; null for an empty value.
    value: Option<String>,
    /// Grows with every write.
    pub(super) modify_index: u64,
    #[serde(default)]
    session: Option<String>,
}

impl Entry {
    /// The session that holds it as a lock.
    pub(super) fn holder(&self) -> Option<SessionId> {
        let session = self.session.as_ref().filter(|session| !session.is_empty());
        session.map(SessionId::new)
    }

    /// The value as it was written: any bytes.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, BodyError> {
        match &self.value {
            Some(text) => BASE64
                .decode(text)
                .map_err(|source| BodyError::Base64(source.into())),
            None => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests;
