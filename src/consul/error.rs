//! What can go wrong between us and Consul, before the first request and after.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::decide::ids::SessionId;
use crate::decide::sight::ConsulFault;
use crate::errors::with_causes;

/// Any error, as the cause of another.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why no client could be made of the settings. Each names the variable to change.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file or directory cannot be read.
    #[error("could not read {} of {variable}", .path.display())]
    File {
        /// The setting.
        variable: &'static str,
        /// What it names.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not what its variable asks for.
    #[error("{variable} is {}, allowed is {allowed} in PEM", .path.display())]
    Pem {
        /// The setting.
        variable: &'static str,
        /// What it names.
        path: PathBuf,
        /// What it should hold.
        allowed: &'static str,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate authority that TLS refuses.
    #[error("could not trust a certificate in {} of {variable}", .path.display())]
    Authority {
        /// The setting.
        variable: &'static str,
        /// What it names.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Nobody to trust: no private authority was named and the system has none.
    #[error(
        "the system has no certificate authorities: set CONSUL_CACERT or CONSUL_CAPATH, or install them"
    )]
    NoAuthorities {
        /// The first thing that failed while they were looked for.
        source: Option<rustls_native_certs::Error>,
    },
    /// The client's certificate and key are not usable together.
    #[error("could not use {} of CONSUL_CLIENT_CERT with {} of CONSUL_CLIENT_KEY", .certificate.display(), .key.display())]
    ClientCertificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The name that the server should prove is no host name.
    #[error("CONSUL_TLS_SERVER_NAME is {name:?}, allowed is a host name")]
    ServerName {
        /// What was found.
        name: String,
    },
    /// A secret that no HTTP header can carry. The secret stays unsaid.
    #[error("{variable} holds characters that no HTTP header can carry")]
    Header {
        /// The setting.
        variable: &'static str,
    },
    /// The address cannot be understood. It may carry a password, so it stays unsaid.
    #[error("CONSUL_HTTP_ADDR is not an address, allowed is host:port or http(s)://host:port")]
    Address {
        /// What is wrong with it.
        source: Option<Cause>,
    },
    /// The HTTP client or its TLS cannot be built.
    #[error("could not build the client for consul")]
    Client {
        /// Why not.
        source: Cause,
    },
}

/// Why Consul did not do, or may not have done, what was asked.
///
/// Only [`Denied`](ConsulError::Denied), [`Key`](ConsulError::Key) and a [`Status`](ConsulError::Status) below 500
/// mean that nothing was changed; after any other error the request may have been carried out.
#[derive(Debug, thiserror::Error)]
pub enum ConsulError {
    /// No connection, or it broke before the whole answer was in.
    #[error("could not {what}: consul is unreachable{advice}")]
    Unreachable {
        /// What was attempted.
        what: String,
        /// What to change.
        advice: Advice,
        /// What the network or TLS said.
        source: Cause,
    },
    /// No answer in time.
    #[error("could not {what}: no answer from consul in {after:?}")]
    Timeout {
        /// What was attempted.
        what: String,
        /// The deadline that passed.
        after: Duration,
    },
    /// The token, or the lack of one, does not allow it.
    #[error("could not {what}: consul denies it ({code}: {message}){advice}")]
    Denied {
        /// What was attempted.
        what: String,
        /// The HTTP status.
        code: u16,
        /// Consul's words.
        message: String,
        /// The right to grant, or the variable to change.
        advice: Advice,
    },
    /// Consul, or a proxy before it, asked for fewer requests, in its answer to this one or to one before; then this one was not
    /// sent.
    #[error(
        "could not {what}: consul asks for fewer requests ({code}), the next one is sent when it allows it"
    )]
    Throttled {
        /// What was attempted.
        what: String,
        /// The HTTP status.
        code: u16,
    },
    /// An answer that this request should not get.
    #[error("could not {what}: consul answered {code} ({message}){advice}")]
    Status {
        /// What was attempted.
        what: String,
        /// The HTTP status.
        code: u16,
        /// Consul's words.
        message: String,
        /// What to change, where that is known.
        advice: Advice,
    },
    /// An answer that cannot be read.
    #[error("could not {what}: consul's answer makes no sense")]
    Body {
        /// What was attempted.
        what: String,
        /// What is wrong with it.
        source: BodyError,
    },
    /// An answer that is too big to be one.
    #[error("could not {what}: consul's answer is longer than {limit_bytes} bytes")]
    TooLong {
        /// What was attempted.
        what: String,
        /// The bound.
        limit_bytes: usize,
    },
    /// A key that a URL's path cannot name: servers and clients on the way would rewrite it into another one.
    #[error("could not {what}: the key {key:?} is empty or has an empty, \".\" or \"..\" part")]
    Key {
        /// What was attempted.
        what: String,
        /// The key.
        key: String,
    },
}

impl ConsulError {
    /// Consul answered, and the answer is that we may not: waiting will not help, another token will.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Status { .. }
            | Self::Throttled { .. }
            | Self::Body { .. }
            | Self::TooLong { .. }
            | Self::Key { .. } => false,
        }
    }
}

/// As the core is told of it.
impl From<ConsulError> for ConsulFault {
    fn from(error: ConsulError) -> Self {
        Self {
            why: with_causes(&error),
            denied: error.is_denied(),
        }
    }
}

/// The end of an error's sentence: what to do about it; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice(Option<String>);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(words) => write!(f, ", {words}"),
            None => Ok(()),
        }
    }
}

impl From<String> for Advice {
    fn from(words: String) -> Self {
        Self(Some(words))
    }
}

/// What is wrong with the body of an answer.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Not the JSON that was expected.
    #[error("not the JSON that was expected")]
    Json(#[from] serde_json::Error),
    /// A value that is not base64.
    #[error("a value is not base64")]
    Base64(#[source] Cause),
    /// A read that does not say how far it has read: it did not come from Consul.
    #[error("no X-Consul-Index")]
    NoIndex,
    /// The answer is about something else.
    #[error("an answer about {found:?} where {expected:?} was asked for")]
    Other {
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
    },
    /// Neither a result nor an error.
    #[error("neither results nor errors")]
    Empty,
}

impl BodyError {
    /// A session other than the session in question.
    pub(super) fn other_session(expected: &SessionId, found: Option<String>) -> Self {
        Self::Other {
            expected: expected.to_string(),
            found: found.unwrap_or_default(),
        }
    }
}
