//! `HTTP_LISTEN` and what belongs to it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::build::lone;
use super::error::{AndAlso, ConfigError, SettingError};
use super::parse;
use super::settings::RawConfig;

/// Where checks are answered, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// `HTTP_LISTEN`.
    pub listen: SocketAddr,
    /// `HTTP_TLS_CERT` and `HTTP_TLS_KEY`.
    pub tls: Option<HttpTls>,
}

/// The files of a server that speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTls {
    /// `HTTP_TLS_CERT`: its certificate, and those up to its authority's.
    pub certificate: PathBuf,
    /// `HTTP_TLS_KEY`.
    pub key: PathBuf,
    /// `HTTP_TLS_CLIENT_CA`: whose certificates clients must have; `None`: they need none.
    pub client_authorities: Option<PathBuf>,
}

/// `None`: nothing listens.
pub(super) fn http(raw: &RawConfig) -> Result<Option<HttpConfig>, ConfigError> {
    let pair = match (raw.http_tls_cert().set(), raw.http_tls_key().set()) {
        (Some(certificate), Some(key)) => {
            Ok(Some((PathBuf::from(certificate), PathBuf::from(key))))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(lone("HTTP_TLS_CERT", "HTTP_TLS_KEY")),
        (None, Some(_)) => Err(lone("HTTP_TLS_KEY", "HTTP_TLS_CERT")),
    };
    let ((listen, pair), client_authorities) = raw
        .http_listen()
        .optional(parse::listen)
        .and_also(pair)
        .and_also(raw.http_tls_client_ca().optional(parse::path))?;
    let without = |name, missing| Err(SettingError::Without { name, missing }.into());
    match (listen, pair) {
        (_, None) if client_authorities.is_some() => without("HTTP_TLS_CLIENT_CA", "HTTP_TLS_CERT"),
        (None, Some(_)) => without("HTTP_TLS_CERT", "HTTP_LISTEN"),
        (None, None) => Ok(None),
        (Some(listen), pair) => Ok(Some(HttpConfig {
            listen,
            tls: pair.map(|(certificate, key)| HttpTls {
                certificate,
                key,
                client_authorities,
            }),
        })),
    }
}
