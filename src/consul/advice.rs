//! What to do about an error: the variable to set, the right to grant. Said in the error, where people look first.

use std::error::Error;

use rustls::{AlertDescription, CertificateError};

use super::error::{Advice, ConsulError};
use crate::config::ConsulConfig;

/// What an advice depends on.
pub(super) struct Advisor {
    address: String,
    has_token: bool,
    has_basic_auth: bool,
}

impl Advisor {
    pub(super) fn new(config: &ConsulConfig) -> Self {
        Self {
            // Checked when it was read: a scheme, a host and a port, no password.
            address: config.base_url.clone(),
            has_token: config.token.is_some(),
            has_basic_auth: config.basic_auth.is_some(),
        }
    }

    /// The error with the advice that fits; `rule` is the rule that an ACL policy needs for what was attempted.
    pub(super) fn advise(&self, error: ConsulError, rule: &str) -> ConsulError {
        match error {
            ConsulError::Denied {
                what,
                code,
                message,
                ..
            } => ConsulError::Denied {
                advice: self.about_denial(code, &message, rule).into(),
                what,
                code,
                message,
            },
            ConsulError::Unreachable { what, source, .. } => ConsulError::Unreachable {
                advice: self.about_connection(source.as_ref()).into(),
                what,
                source,
            },
            other @ (ConsulError::Status { .. }
            | ConsulError::Throttled { .. }
            | ConsulError::Timeout { .. }
            | ConsulError::Body { .. }
            | ConsulError::TooLong { .. }
            | ConsulError::Key { .. }) => other,
        }
    }

    fn about_denial(&self, code: u16, message: &str, rule: &str) -> String {
        if code == 401 {
            let found = if self.has_basic_auth {
                "is wrong"
            } else {
                "is not set"
            };
            return format!(
                "CONSUL_HTTP_AUTH {found}: it must be the user:password that is asked for there"
            );
        }
        if message.contains("ACL not found") {
            return "it does not know the token of CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE: set one that it knows"
                .to_owned();
        }
        let named = service_denied(message).map(service_rule);
        let rule = named.as_deref().unwrap_or(rule);
        if self.has_token {
            format!("the token lacks a right: grant it {rule}")
        } else {
            format!(
                "no token is set: set CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE to one with {rule}"
            )
        }
    }

    fn about_connection(&self, error: &(dyn Error + 'static)) -> String {
        let address = &self.address;
        match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => format!(
                "its certificate is not for the host in CONSUL_HTTP_ADDR ({address}) or the name in \
                 CONSUL_TLS_SERVER_NAME: set the latter to a name that the certificate is for"
            ),
            // An authority that was renewed under its old name has another key.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => {
                "nobody in CONSUL_CACERT or CONSUL_CAPATH (without them: the system's authorities) has signed its \
                 certificate: set one of them to its authority"
                    .to_owned()
            }
            Some(rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::DecryptError,
            )) => "it demands a client certificate that it trusts: set CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"
                .to_owned(),
            Some(rustls::Error::InvalidMessage(_)) => {
                format!("there is no TLS at CONSUL_HTTP_ADDR ({address}): change it or CONSUL_HTTP_SSL")
            }
            Some(_) | None => format!("CONSUL_HTTP_ADDR is {address}"),
        }
    }
}

/// About an answer that a request should not get, by its words.
pub(super) fn about_status(message: &str) -> Advice {
    if message.contains("Namespaces are a Consul Enterprise feature") {
        "do not set CONSUL_NAMESPACE".to_owned().into()
    } else if message.contains("HTTP request to an HTTPS server") {
        "there is TLS at CONSUL_HTTP_ADDR: set CONSUL_HTTP_SSL=true"
            .to_owned()
            .into()
    } else {
        Advice::default()
    }
}

/// What TLS has to say about an error. `io::Error` hides what it wraps from `source`.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The rule for one key.
pub(super) fn key_rule(key: &str) -> String {
    format!("key \"{key}\" {{ policy = \"write\" }}")
}

/// The rule for the keys beside `key`, or for all that begin with it where it is a prefix.
pub(super) fn prefix_rule(key: &str) -> String {
    let prefix = key.rfind('/').map_or(key, |at| &key[..=at]);
    format!("key_prefix \"{prefix}\" {{ policy = \"write\" }}")
}

/// The rule for reading all keys under a prefix, also where Consul has `enable_key_list_policy`.
pub(super) fn list_rule(prefix: &str) -> String {
    format!("key_prefix \"{prefix}\" {{ policy = \"list\" }}")
}

/// The rule for sessions: Consul asks for the right on the node of its agent, whose name is unknown here.
pub(super) const SESSION_RULE: &str = "session \"NODE\" { policy = \"write\" }, where NODE is the name of the node of that Consul agent";

/// The rule for a service of this name.
pub(super) fn service_rule(name: &str) -> String {
    format!("service \"{name}\" {{ policy = \"write\" }}")
}

/// The rule for the service of an id, which is `<name or prefix>@<address>@<instance UUID>`: only Consul's own words have the
/// name that it is registered by.
pub(super) fn service_rule_of(id: &str) -> String {
    let base = id.split('@').next().unwrap_or(id);
    format!("service \"…\" {{ policy = \"write\" }} for each name of {base}")
}

/// The service's name in a denial: `Missing service:write on web` (1.8), `lacks permission 'service:write' on "web"` (since
/// 1.13, by its source).
fn service_denied(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("service:write")?;
    let (_, name) = rest.split_once(" on ")?;
    let name = name.split(|c: char| c.is_whitespace() || c == ',').next()?;
    let name = name.trim_matches(|c| matches!(c, '"' | '\'' | ')' | '.'));
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::service_denied;

    #[test]
    fn a_denial_names_its_service_in_old_and_in_new_words() {
        for (words, name) in [
            (
                "Permission denied: Missing service:write on tarantool-shop-master",
                Some("tarantool-shop-master"),
            ),
            (
                "Permission denied: token with AccessorID '7a' lacks permission 'service:write' on \"tarantool-shop-master\"",
                Some("tarantool-shop-master"),
            ),
            (
                "rpc error: lacks permission 'service:write' on \"web\" in partition \"default\"",
                Some("web"),
            ),
            ("Permission denied", None),
            ("Permission denied: Missing service:write on ", None),
        ] {
            assert_eq!(service_denied(words), name, "{words}");
        }
    }
}
