//! Why an instance could not be attached, with what to do about it.

use crate::config::{TarantoolAddr, TarantoolConfig};
use crate::errors::chain;
use crate::tarantool::conn::OpenError;
use crate::tarantool::guard::GuardError;
use crate::tarantool::iproto::code;

/// Why there is no attached connection.
pub(super) enum AttachFailure {
    /// It is a vshard router, which needs another kind of agent.
    Router,
    Refused {
        why: String,
    },
    Unsuitable {
        why: String,
    },
    Other {
        why: String,
    },
}

impl AttachFailure {
    pub(super) fn from_open(error: OpenError, config: &TarantoolConfig) -> Self {
        let advice = match (&error, error.code()) {
            (OpenError::NotTarantool { .. }, _) => {
                "; set TARANTOOL_ADDR to what box.cfg.listen is in the instance"
            }
            (_, Some(code::PASSWORD_MISMATCH)) => {
                "; set TARANTOOL_PASSWORD or TARANTOOL_PASSWORD_FILE to the password of TARANTOOL_USER"
            }
            (_, Some(code::NO_SUCH_USER)) => {
                "; create that user or change TARANTOOL_USER, unless the instance is still being bootstrapped"
            }
            (_, Some(code::LOADING)) => {
                "; it is being bootstrapped or recovers, and may wait for its peers"
            }
            (_, _) => "",
        };
        let why = format!("{}: {}{advice}", peer(config), chain(&error));
        match error {
            OpenError::Refused(_) => Self::Refused { why },
            OpenError::NotTarantool { .. } => Self::Unsuitable { why },
            OpenError::Timeout { .. }
            | OpenError::Unreachable(_)
            | OpenError::Auth { .. }
            | OpenError::Closed(_) => Self::Other { why },
        }
    }

    pub(super) fn from_guard(error: &GuardError, config: &TarantoolConfig) -> Self {
        if let GuardError::OwnRule { .. } | GuardError::Lacks { .. } = error {
            return Self::Unsuitable { why: chain(error) };
        }
        let mut why = format!("{}: {}", peer(config), chain(error));
        if let GuardError::Request { source, .. } = error
            && source.code() == Some(code::ACCESS_DENIED)
        {
            let user = config.user.as_deref().unwrap_or("guest");
            why = format!(
                "{why}; as admin, on the master or at bootstrap: box.schema.user.grant('{user}', 'execute', 'universe')"
            );
        }
        Self::Other { why }
    }
}

/// Whom we try to reach, and where that was set.
pub(super) fn peer(config: &TarantoolConfig) -> String {
    match &config.addr {
        TarantoolAddr::Tcp(host_and_port) => format!("{host_and_port} (TARANTOOL_ADDR)"),
        TarantoolAddr::Unix(path) => format!("{} (TARANTOOL_ADDR)", path.display()),
    }
}
