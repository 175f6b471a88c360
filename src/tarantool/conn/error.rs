//! How connecting, a request, or the connection itself ends badly.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::tarantool::iproto::EncodeError;

/// How a connection ended.
///
/// `Eof` and `Reset` come from the peer's end of the socket: its process closed it or died. The others do not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The peer closed it in an orderly way, as the kernel also does for a process that was killed.
    #[error("the peer closed the connection")]
    Eof,
    /// The peer's end is gone: `ECONNRESET`, `ECONNABORTED` or `EPIPE`.
    #[error("the peer reset the connection")]
    Reset,
    /// The socket failed in another way: a TCP timeout, no route. It says nothing about the peer's process.
    #[error("the connection failed: {0}")]
    Failed(String),
    /// The peer sent bytes that are no binary protocol, so the agent closed the connection.
    #[error("the peer broke the protocol: {0}")]
    Broken(String),
}

impl From<&io::Error> for Ended {
    fn from(error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        if matches!(
            error.kind(),
            ConnectionReset | ConnectionAborted | BrokenPipe
        ) {
            Self::Reset
        } else {
            Self::Failed(error.to_string())
        }
    }
}

/// A part of opening a connection, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Asking for the host's addresses.
    Resolve,
    /// Connecting the socket.
    Connect,
    /// Waiting for the greeting: a stopped or hung Tarantool accepts and stays silent.
    Greeting,
    /// Authenticating.
    Auth,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolve the host",
            Self::Connect => "connect",
            Self::Greeting => "get a greeting",
            Self::Auth => "authenticate",
        })
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `ECONNREFUSED`: the host answered, and nothing listens there.
    #[error("nothing listens there")]
    Refused(#[source] io::Error),
    /// Not found or not reached: DNS, no route, no such socket file, no permission to use it, a socket whose queue
    /// of connections is full (`EAGAIN`, a unix socket's hung listener).
    #[error("it cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The deadline passed.
    #[error("could not {step} within {after:?}")]
    Timeout {
        /// The step that was under way.
        step: Step,
        /// The deadline of the whole.
        after: Duration,
    },
    /// Something else listens there.
    #[error("not a Tarantool binary port, found {found}")]
    NotTarantool {
        /// Its first bytes, quoted, escaped and cut.
        found: String,
    },
    /// It ended before it was ready for use.
    #[error("the connection ended before it was ready")]
    Closed(#[source] Ended),
    /// The instance refused the user, the password, or every login for now.
    #[error("could not authenticate as \"{user}\": error {code}: {message}")]
    Auth {
        /// The user as whom the agent tried to log in.
        user: String,
        /// See [`code`](crate::tarantool::iproto::code).
        code: u32,
        /// Tarantool's text.
        message: String,
    },
}

impl OpenError {
    /// Tarantool's error code, where it was Tarantool that refused.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Auth { code, .. } => Some(*code),
            Self::Refused(_)
            | Self::Unreachable(_)
            | Self::Timeout { .. }
            | Self::NotTarantool { .. }
            | Self::Closed(_) => None,
        }
    }
}

/// Why a request has no result. Whether the instance executed it is certain only for `Tarantool`, `Decode` (it did),
/// `Encode` and `TooLarge` (it did not).
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No reply within the deadline. A frame that still waits in our queue is not sent any more.
    #[error("could not {what} within {after:?}")]
    Timeout {
        /// The request: `ping`, `call NAME`, `evaluate an expression`.
        what: String,
        /// The deadline that passed.
        after: Duration,
    },
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed(#[source] Ended),
    /// The instance answered with an error.
    #[error("tarantool answered with error {code}: {message}")]
    Tarantool {
        /// See [`code`](crate::tarantool::iproto::code).
        code: u32,
        /// Tarantool's text.
        message: String,
    },
    /// The first value returned is not what was asked for.
    #[error("could not decode the reply to {what}")]
    Decode {
        /// The request, in the words of `Timeout`.
        what: String,
        /// Why the value did not fit.
        source: rmp_serde::decode::Error,
    },
    /// The arguments cannot be sent.
    #[error("could not encode the request to {what}")]
    Encode {
        /// The request.
        what: String,
        /// Why they cannot be sent.
        source: EncodeError,
    },
    /// The request exceeds [`MAX_FRAME_LEN`](crate::tarantool::iproto::MAX_FRAME_LEN). A reply that does ends the
    /// connection instead ([`Ended::Broken`]).
    #[error("could not {what}: the request's {len} bytes are over the limit")]
    TooLarge {
        /// The request.
        what: String,
        /// Its length, in bytes.
        len: usize,
    },
}

impl RequestError {
    /// Tarantool's error code, where it was Tarantool that refused.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Tarantool { code, .. } => Some(*code),
            Self::Timeout { .. }
            | Self::Closed(_)
            | Self::Decode { .. }
            | Self::Encode { .. }
            | Self::TooLarge { .. } => None,
        }
    }
}
