//! One parser per kind of value. An error is what would have been allowed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use super::{Announce, GuardMode, HungInstanceAction, ReplicationMode, Role, TarantoolAddr};
use crate::decide::settings::{Elector, SyncLoss};

/// `10s`, `250ms`, `1m 30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "a number with its unit ({text} of what?), such as 10s or 250ms"
        ));
    }
    humantime::parse_duration(text)
        .map_err(|_| "a duration such as 10s, 250ms or 1m 30s".to_owned())
}

/// A duration within bounds, both included.
pub(super) fn duration_within(
    least: Duration,
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| match duration(text)? {
        found if found < least || found > most => Err(format!(
            "{} to {}",
            humantime::format_duration(least),
            humantime::format_duration(most)
        )),
        found => Ok(found),
    }
}

/// What Go's `strconv.ParseBool` takes, as the Consul CLI does.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false (or 1, t, 0, f)".to_owned()),
    }
}

pub(super) fn integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "a whole number".to_owned())
}

/// A count of tries.
pub(super) fn retries(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        Ok(_) | Err(_) => Err("a whole number from 1 to 1000".to_owned()),
    }
}

/// A name that is one segment of a key or part of a service's id.
pub(super) fn name(text: &str) -> Result<String, String> {
    if is_segment(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("1 to {NAME_MAX} letters, digits, '-', '_' or '.'"))
    }
}

/// A key or its beginning: names with slashes between them.
pub(super) fn key(text: &str) -> Result<String, String> {
    if text.split('/').all(is_segment) {
        Ok(text.to_owned())
    } else {
        Err(
            "letters, digits, '-', '_' or '.', with single slashes between and none at either end"
                .to_owned(),
        )
    }
}

/// Long enough for every name that a person types, short enough for a key of several of them (Consul's keys end
/// at 512 bytes).
const NAME_MAX: usize = 64;

/// `.` and `..` would be resolved away in a URL.
fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != ".."
}

/// Comma-separated tags; blanks around them and empty ones do not count.
pub(super) fn tags(text: &str) -> Result<Vec<String>, String> {
    let tags: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect();
    if tags.is_empty() {
        Err("at least one tag, several separated by commas".to_owned())
    } else {
        Ok(tags)
    }
}

/// Names are not looked up: an agent answers where it was told to, whatever a name means tomorrow.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let parsed = text.parse().ok();
    parsed
        .filter(|address: &SocketAddr| address.port() != 0)
        .ok_or_else(|| {
            "an address and a port such as 127.0.0.1:7301, 0.0.0.0:7301 or [::]:7301".to_owned()
        })
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

pub(super) fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// `keep` or `follow`.
pub(super) fn replication(text: &str) -> Result<ReplicationMode, String> {
    match text {
        "keep" => Ok(ReplicationMode::Keep),
        "follow" => Ok(ReplicationMode::Follow),
        _ => Err("keep or follow".to_owned()),
    }
}

/// `auto`, `storage` or `router`.
pub(super) fn role(text: &str) -> Result<Role, String> {
    match text {
        "auto" => Ok(Role::Auto),
        "storage" => Ok(Role::Storage),
        "router" => Ok(Role::Router),
        _ => Err("auto, storage or router".to_owned()),
    }
}

/// `auto` or `off`.
pub(super) fn vshard(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err("auto or off".to_owned()),
    }
}

/// `refuse` or `accept`.
pub(super) fn sync_loss(text: &str) -> Result<SyncLoss, String> {
    match text {
        "refuse" => Ok(SyncLoss::Refuse),
        "accept" => Ok(SyncLoss::Accept),
        _ => Err("refuse or accept".to_owned()),
    }
}

/// `smart`, `idle` or `first`.
pub(super) fn elector(text: &str) -> Result<Elector, String> {
    match text {
        "smart" => Ok(Elector::Smart),
        "idle" => Ok(Elector::Idle),
        "first" => Ok(Elector::First),
        _ => Err("smart, idle or first".to_owned()),
    }
}

/// `lease` or `strict`.
pub(super) fn guard(text: &str) -> Result<GuardMode, String> {
    match text {
        "lease" => Ok(GuardMode::Lease),
        "strict" => Ok(GuardMode::Strict),
        _ => Err("lease or strict".to_owned()),
    }
}

/// `on` or `off`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off".to_owned()),
    }
}

pub(super) fn rows(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("a whole number, 0 to {}", u64::MAX))
}

/// A duration in which 0 needs no unit: it is off.
pub(super) fn duration_or_off(most: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| match text {
        "0" => Ok(Duration::ZERO),
        _ => duration_within(Duration::ZERO, most)(text),
    }
}

/// `kill` or `wait`.
pub(super) fn hung_instance(text: &str) -> Result<HungInstanceAction, String> {
    match text {
        "kill" => Ok(HungInstanceAction::Kill),
        "wait" => Ok(HungInstanceAction::Wait),
        _ => Err("kill or wait".to_owned()),
    }
}

/// A level, in capitals or not.
pub(super) fn level(text: &str) -> Result<Level, String> {
    match text.to_ascii_lowercase().as_str() {
        "trace" => Ok(Level::TRACE),
        "debug" => Ok(Level::DEBUG),
        "info" => Ok(Level::INFO),
        "warn" => Ok(Level::WARN),
        "error" => Ok(Level::ERROR),
        _ => Err("trace, debug, info, warn or error".to_owned()),
    }
}

/// Whether logs, or dumps, are JSON.
pub(super) fn format(text: &str) -> Result<bool, String> {
    match text {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err("text or json".to_owned()),
    }
}

/// `user:password`; a user without a password has an empty one, as in the Consul CLI.
pub(super) fn basic_auth(text: &str) -> Result<(String, String), String> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() || text.chars().any(char::is_control) {
        return Err("user:password".to_owned());
    }
    Ok((user.to_owned(), password.to_owned()))
}

/// `host:port`, an absolute path, or Tarantool's own `unix/:/path`.
pub(super) fn tarantool_addr(text: &str) -> Result<TarantoolAddr, String> {
    let socket = text.strip_prefix("unix/:").unwrap_or(text);
    if socket.starts_with('/') {
        return Ok(TarantoolAddr::Unix(PathBuf::from(socket)));
    }
    match host_and_port(text) {
        Some((host, _)) if !host.is_empty() => Ok(TarantoolAddr::Tcp(text.to_owned())),
        Some(_) | None => Err(
            "host:port (an IPv6 address in brackets) or the absolute path of a unix socket"
                .to_owned(),
        ),
    }
}

/// A unix socket's absolute path, also as Tarantool writes it.
pub(super) fn socket(text: &str) -> Result<PathBuf, String> {
    match tarantool_addr(text) {
        Ok(TarantoolAddr::Unix(path)) => Ok(path),
        Ok(TarantoolAddr::Tcp(_)) | Err(_) => Err("the absolute path of a unix socket".to_owned()),
    }
}

/// What `ANNOUNCE_ADDR` says: `host:port` or `:port`.
pub(super) fn announce(text: &str) -> Result<Announce, String> {
    match host_and_port(text) {
        Some((host, port)) if !is_any_address(host) => Ok(Announce {
            host: host.to_owned(),
            port,
            id: text.to_owned(),
        }),
        Some(_) | None => Err(
            "host:port (an IPv6 address in brackets) as others can reach it, or :port".to_owned(),
        ),
    }
}

/// What others can make of `TARANTOOL_ADDR`.
pub(super) fn announce_from(addr: &TarantoolAddr) -> Option<Announce> {
    match addr {
        TarantoolAddr::Unix(path) => Some(Announce {
            host: String::new(),
            port: 0,
            id: path.display().to_string(),
        }),
        TarantoolAddr::Tcp(text) => host_and_port(text).map(|(host, port)| Announce {
            host: if is_local(host) || is_any_address(host) {
                String::new()
            } else {
                host.to_owned()
            },
            port,
            id: text.clone(),
        }),
    }
}

/// `[scheme://]host[:port]` → a base URL. The scheme, where there is one, wins over `CONSUL_HTTP_SSL`.
pub(super) fn consul_url(ssl: bool) -> impl Fn(&str) -> Result<String, String> {
    move |text| {
        let (scheme, rest) = match text.split_once("://") {
            None => (if ssl { "https" } else { "http" }, text),
            Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
            Some(("unix", _)) => {
                return Err(format!("{CONSUL_ADDR}; unix sockets are not supported"));
            }
            Some(_) => return Err(CONSUL_ADDR.to_owned()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let has_host = host_and_port(authority).is_some_and(|(host, _)| !host.is_empty())
            || is_host(authority);
        if has_host {
            Ok(format!("{scheme}://{authority}"))
        } else {
            Err(CONSUL_ADDR.to_owned())
        }
    }
}

const CONSUL_ADDR: &str = "host:port, http://host:port or https://host:port, without a path";

/// `host:port`, `[v6]:port` or `:port`; the host comes back without brackets.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| port.parse().ok())?
        .filter(|port| *port > 0)?;
    (host.is_empty() || is_host(host)).then(|| (without_brackets(host), port))
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.bytes().all(allowed)
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether a base URL, as [`consul_url`] makes it, leads to this host.
pub(crate) fn is_this_host(base_url: &str) -> bool {
    let authority = base_url.split_once("://").map_or(base_url, |(_, it)| it);
    let host = host_and_port(authority).map_or(without_brackets(authority), |(host, _)| host);
    is_local(host) || is_any_address(host)
}

fn is_any_address(host: &str) -> bool {
    host.parse::<IpAddr>()
        .is_ok_and(|address| address.is_unspecified())
}
