//! Where a login may be sent. A password goes to whoever answers at an address, and whoever answers there may relay the
//! exchange to the real instance. Anybody who may write to Consul may name an address, so an address out of a key is
//! used only where the instance's own configuration or `PEER_ADDRS` names it as well: it is *vouched for*.
//!
//! Addresses are compared as they are written; no name is resolved.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

/// Where a member is reached, or why no login is sent anywhere for it.
pub type Whereabouts = Result<String, String>;

/// In characters.
pub(crate) const LONGEST_SHOWN: usize = 80;

/// What a member's agent says of it in Consul, where nobody vouches for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Announced {
    /// What it is called.
    pub name: String,
    /// Where it is reached.
    pub uri: String,
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
