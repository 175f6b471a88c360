//! Why an instance could not be attached, with what to do about it.

use crate::config::{TarantoolAddr, TarantoolConfig};
use crate::errors::with_causes;
use crate::tarantool::conn::OpenError;
use crate::tarantool::guard::GuardError;
use crate::tarantool::iproto::code;

/// How `PASSWORD_MISMATCH` begins where the instance knows the user, as only versions before 2.11 say. Since then the
/// same error stands for an unknown user as well.
const KNOWN_USER: &str = "Incorrect password";

/// Over iproto the agent cannot tell that from any other wait.
const UNNAMED: &str = "; where replication.bootstrap_strategy is supervised or native, a first start waits until somebody \
    names the leader: set TARANTOOL_CONTROL to its console.socket, so that the agents do";

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
        let mut why = format!(
            "{}: {}{}",
            peer(config),
            with_causes(&error),
            advice(&error)
        );
        if let (
            OpenError::Auth {
                code: code::LOADING,
                ..
            },
            None,
        ) = (&error, &config.control)
        {
            why.push_str(UNNAMED);
        }
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
            return Self::Unsuitable {
                why: with_causes(error),
            };
        }
        let mut why = format!("{}: {}", peer(config), with_causes(error));
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

/// What to do about it, as the end of its sentence.
fn advice(error: &OpenError) -> &'static str {
    match error {
        OpenError::NotTarantool { .. } => {
            "; set TARANTOOL_ADDR to what box.cfg.listen is in the instance"
        }
        OpenError::Auth {
            code: code::PASSWORD_MISMATCH,
            message,
            ..
        } if message.starts_with(KNOWN_USER) => {
            "; set TARANTOOL_PASSWORD or TARANTOOL_PASSWORD_FILE to the password of TARANTOOL_USER"
        }
        OpenError::Auth {
            code: code::PASSWORD_MISMATCH,
            ..
        } => {
            "; create that user or change TARANTOOL_USER, or set TARANTOOL_PASSWORD or TARANTOOL_PASSWORD_FILE to its \
             password, unless the instance is still being bootstrapped"
        }
        OpenError::Auth {
            code: code::NO_SUCH_USER,
            ..
        } => {
            "; create that user or change TARANTOOL_USER, unless the instance is still being bootstrapped"
        }
        OpenError::Auth {
            code: code::LOADING,
            ..
        } => "; it is being bootstrapped or recovers, and may wait for its peers",
        OpenError::Auth { .. }
        | OpenError::Refused(_)
        | OpenError::Unreachable(_)
        | OpenError::Timeout { .. }
        | OpenError::Closed(_) => "",
    }
}

/// The instance that the agent tries to reach, with the setting that says so.
pub(super) fn peer(config: &TarantoolConfig) -> String {
    match &config.addr {
        TarantoolAddr::Tcp(host_and_port) => format!("{host_and_port} (TARANTOOL_ADDR)"),
        TarantoolAddr::Unix(path) => format!("{} (TARANTOOL_ADDR)", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::{OpenError, advice, code};

    #[test]
    fn the_advice_names_the_user_as_well_where_the_refusal_may_mean_either() {
        for (code, message, user, password) in [
            (
                code::PASSWORD_MISMATCH,
                "Incorrect password supplied for user 'tarsec'",
                false,
                true,
            ),
            (
                code::PASSWORD_MISMATCH,
                "User not found or supplied credentials are invalid",
                true,
                true,
            ),
            (
                code::NO_SUCH_USER,
                "User 'tarsec' is not found",
                true,
                false,
            ),
        ] {
            let error = OpenError::Auth {
                user: "tarsec".to_owned(),
                code,
                message: message.to_owned(),
            };
            let said = advice(&error);
            assert_eq!(said.contains("change TARANTOOL_USER"), user, "{said}");
            assert_eq!(said.contains("set TARANTOOL_PASSWORD"), password, "{said}");
        }
    }
}
