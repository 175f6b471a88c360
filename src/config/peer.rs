//! How the other members are asked.

use super::build::{lone, secret, secret_name};
use super::error::{AndAlso, ConfigError};
use super::settings::RawConfig;
use super::{PeerConfig, parse};
use crate::decide::addresses::PeerAddrs;
use crate::secrets::Check;

/// `PEER_ADDRS`, `PEER_USER` and its password.
pub(super) fn peer(raw: &RawConfig) -> Result<PeerConfig, ConfigError> {
    // It stands in no URI.
    let any: Check = |_, _| Ok(());
    let ((addrs, user), password) = raw
        .peer_addrs()
        .optional(PeerAddrs::parse)
        .and_also(raw.peer_user().optional(parse::text))
        .and_also(secret(raw.peer_password(), raw.peer_password_file(), any))?;
    let login = match (user, password) {
        (Some(user), password) => Some((user, password.unwrap_or_default())),
        (None, None) => None,
        (None, Some(_)) => {
            let name = secret_name(raw.peer_password(), raw.peer_password_file());
            return Err(lone(name, "PEER_USER"));
        }
    };
    Ok(PeerConfig {
        addrs: addrs.unwrap_or_default(),
        login,
    })
}
