//! Where a login may be sent. A password goes to whoever answers at an address, and whoever answers there may relay the
//! exchange to the real instance. Anybody who may write to Consul may name an address, so an address out of a key is
//! used only where the instance's own configuration or `PEER_ADDRS` names it as well: it is *vouched for*.
//!
//! Addresses are compared as they are written; no name is resolved.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::board::Board;
use super::observed::Probe;
use super::problems::labels;
use super::state::State;

/// Where a member is reached, or why no login is sent anywhere for it.
pub type Whereabouts = Result<String, String>;

/// Who says where a member is, and the address.
type Found<'a> = (&'static str, &'a str);

fn unvouched_words((source, address): Found<'_>) -> String {
    // Whatever stands in Consul; an address is no longer than a name and a port.
    let address: String = address.chars().take(LONGEST_SHOWN).collect();
    format!(
        "{source} {address:?}, which neither box.cfg.replication, as the instance's own configuration has it, nor \
         PEER_ADDRS names"
    )
}

fn whereabouts_words(refused: Option<Found<'_>>) -> String {
    match refused {
        None => "where it can be reached is not known".to_owned(),
        Some(found) => format!("no login is sent: {}", unvouched_words(found)),
    }
}

/// In characters.
const LONGEST_SHOWN: usize = 80;

/// What a member's agent says of it in Consul, where nobody vouches for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Announced {
    /// What it is called.
    pub name: String,
    /// Where it is reached.
    pub uri: String,
}

impl Board {
    /// Of every member, by instance UUID.
    #[must_use]
    pub fn announced(&self) -> BTreeMap<String, Announced> {
        let members = self.members.iter();
        members
            .map(|(uuid, member)| {
                let (name, uri) = (member.name.clone(), member.uri.clone());
                (uuid.clone(), Announced { name, uri })
            })
            .collect()
    }
}

/// What `PEER_ADDRS` allows besides the instance's own configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerAddrs(Vec<Allowed>);

/// One entry of `PEER_ADDRS`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    /// A host's port, or a unix socket.
    Address(Address),
    /// Every port of a host.
    Host(Host),
    /// Every port of the hosts whose addresses begin with these bits.
    Net { base: IpAddr, bits: u8 },
}

/// An address as it is compared: the case of a name and the spelling of an IP address do not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Tcp(Host, u16),
    /// The socket's path.
    Unix(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    /// In lower case.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix/:{path}"),
        }
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let inner = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(inner) = inner {
            return inner.parse::<Ipv6Addr>().ok().map(|ip| Self::Ip(ip.into()));
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Some(Self::Ip(ip.into()));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (!text.is_empty() && text.bytes().all(fits)).then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

impl Address {
    /// `host:port`, `[v6]:port`, `unix/:/path` or `/path`, and nothing else: no login, no parameters.
    fn parse(text: &str) -> Option<Self> {
        let path = text.strip_prefix("unix/:").unwrap_or(text);
        if path.starts_with('/') {
            let is_plain = !path.chars().any(|it| it.is_control() || it.is_whitespace());
            return is_plain.then(|| Self::Unix(path.to_owned()));
        }
        let (host, port) = text.rsplit_once(':')?;
        Some(Self::Tcp(Host::parse(host)?, port_of(port)?))
    }
}

fn port_of(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = is_number.then(|| text.parse().ok())?;
    port.filter(|port| *port > 0)
}

impl Allowed {
    fn parse(text: &str) -> Option<Self> {
        if let Some(address) = Address::parse(text) {
            return Some(Self::Address(address));
        }
        let Some((base, bits)) = text.split_once('/') else {
            return Host::parse(text).map(Self::Host);
        };
        let Host::Ip(base) = Host::parse(base)? else {
            return None;
        };
        let most = if base.is_ipv4() { 32 } else { 128 };
        let is_number = bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = is_number.then(|| bits.parse().ok())?;
        let bits = bits.filter(|bits| *bits <= most)?;
        Some(Self::Net { base, bits })
    }

    fn allows(&self, address: &Address) -> bool {
        match (self, address) {
            (Self::Address(allowed), _) => allowed == address,
            (Self::Host(allowed), Address::Tcp(host, _)) => allowed == host,
            (Self::Net { base, bits }, Address::Tcp(Host::Ip(ip), _)) => {
                begins_with(*ip, *base, *bits)
            }
            (Self::Host(_) | Self::Net { .. }, Address::Unix(_))
            | (Self::Net { .. }, Address::Tcp(Host::Name(_), _)) => false,
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(host) => host.fmt(f),
            Self::Net { base, bits } => write!(f, "{}/{bits}", Host::Ip(*base)),
        }
    }
}

fn begins_with(ip: IpAddr, base: IpAddr, bits: u8) -> bool {
    let as_number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, true),
        IpAddr::V6(ip) => (ip.to_bits(), false),
    };
    let ((ip, ip_is_v4), (base, base_is_v4)) = (as_number(ip), as_number(base));
    let rest = 128 - u32::from(bits.min(128));
    ip_is_v4 == base_is_v4 && (ip ^ base).checked_shr(rest).unwrap_or(0) == 0
}

impl PeerAddrs {
    /// Of a list with commas.
    ///
    /// # Errors
    /// What is allowed, where an entry is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim);
        let allowed = entries.map(Allowed::parse).collect::<Option<Vec<_>>>();
        allowed.map(Self).ok_or_else(|| {
            "a list with commas of host:port, host (every port), address/bits (a network, every port) and paths of unix \
             sockets; an IPv6 address in brackets"
                .to_owned()
        })
    }

    /// The address as a login may be sent to it: one of those that the instance's own configuration names, or one that
    /// these settings allow. `None`: nobody vouches for it.
    #[must_use]
    pub fn vouched(&self, configured: &[String], address: &str) -> Option<String> {
        let Some(parsed) = Address::parse(address) else {
            // Such as an IPv6 address with a zone: the very words of the instance's configuration, or nothing.
            return configured.iter().find(|known| *known == address).cloned();
        };
        let is_configured = configured
            .iter()
            .any(|known| Address::parse(known).as_ref() == Some(&parsed));
        let is_allowed = || self.0.iter().any(|allowed| allowed.allows(&parsed));
        (is_configured || is_allowed()).then(|| parsed.to_string())
    }
}

impl fmt::Display for PeerAddrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<String> = self.0.iter().map(Allowed::to_string).collect();
        f.write_str(&entries.join(","))
    }
}

impl State {
    /// Where a member's guard is asked: as the instance follows it, else as its agent announces it, else as the instance
    /// followed it last.
    pub(super) fn address(&self, probe: &Probe, uuid: &str) -> Whereabouts {
        let found = self.first_vouched(probe, self.asked_at(probe, uuid));
        found.map_err(whereabouts_words)
    }

    /// Where an instance is to replicate from that member, of which a record says that it is reached at `named`.
    pub(super) fn address_to_follow(
        &self,
        probe: &Probe,
        uuid: &str,
        named: &str,
    ) -> Option<String> {
        self.first_vouched(probe, self.followable_at(uuid, named))
            .ok()
    }

    /// Members for which no login is sent though we may have to ask or to follow them: said while that does no harm yet.
    pub(super) fn unvouched(&self) -> Vec<String> {
        let Some(probe) = &self.instance.probe else {
            return Vec::new();
        };
        let record = self.seen_record();
        let asks = self.settings.failsafe && self.never_master().is_none();
        let others = probe.replication.iter().map(|peer| &peer.uuid);
        let words = others
            .filter(|uuid| **uuid != probe.uuid)
            .filter_map(|uuid| {
                let named = record.filter(|record| record.instance == *uuid);
                let named = named.map_or("", |record| &record.uri);
                let followed = self.first_vouched(probe, self.followable_at(uuid, named));
                let asked = self.first_vouched(probe, self.asked_at(probe, uuid));
                let refused_as_master = followed.err().flatten().filter(|_| self.settings.follow);
                let refused = asked.err().flatten().filter(|_| asks);
                let found = refused_as_master.or(refused)?;
                let harm = [
                    refused_as_master.map(|_| "as master it is not followed"),
                    refused.map(|_| "without Consul its promise is missing"),
                ];
                let harm: Vec<&str> = harm.into_iter().flatten().collect();
                Some(format!(
                    "{} does not log in to {} ({}): {}",
                    self.name(),
                    self.known_as(uuid),
                    harm.join(", "),
                    unvouched_words(found)
                ))
            });
        words.collect()
    }

    /// What to call a member in sentences: two members never alike.
    pub(super) fn known_as(&self, instance: &str) -> String {
        let all = self.announced.iter();
        let all = all.map(|(uuid, it)| (it.name.as_str(), uuid.as_str()));
        labels(all)
            .remove(instance)
            .unwrap_or_else(|| instance.to_owned())
    }

    fn first_vouched<'a>(
        &self,
        probe: &Probe,
        found: impl IntoIterator<Item = Option<Found<'a>>>,
    ) -> Result<String, Option<Found<'a>>> {
        let mut refused = None;
        for (source, address) in found.into_iter().flatten() {
            let allowed = &self.settings.peer_addrs;
            if let Some(address) = allowed.vouched(&probe.configured, address) {
                return Ok(address);
            }
            refused.get_or_insert((source, address));
        }
        Err(refused)
    }

    fn asked_at(&self, probe: &Probe, uuid: &str) -> [Option<Found<'_>>; 2] {
        let (last, announced) = (self.followed_at(uuid), self.announced_at(uuid));
        if probe.upstream(uuid).is_some() {
            [last, announced]
        } else {
            [announced, last]
        }
    }

    fn followable_at<'a>(&'a self, uuid: &str, named: &'a str) -> [Option<Found<'a>>; 3] {
        let named = Some(("the record of the lock says", named));
        [
            named.filter(|(_, uri)| !uri.is_empty()),
            self.announced_at(uuid),
            self.followed_at(uuid),
        ]
    }

    fn followed_at(&self, uuid: &str) -> Option<(&'static str, &str)> {
        let last = self.instance.peers.get(uuid)?;
        Some(("the instance follows", last))
    }

    fn announced_at(&self, uuid: &str) -> Option<(&'static str, &str)> {
        let uri = self.announced.get(uuid).map(|it| it.uri.as_str())?;
        Some(("its member's key in Consul says", uri)).filter(|_| !uri.starts_with(':'))
    }
}
