//! Words exchanged about vshard (`vshard.lua`, `vshard_apply.lua`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::conn::{Connection, RequestError};
use super::platform::PLATFORM;
use super::said;
use crate::decide::vshard::{Look, Named, Wanted};
use crate::secrets::Secret;
use std::collections::BTreeMap;

/// The pure part, and the part that looks and applies; evaluating them where they already are changes nothing.
const SOURCES: [&str; 3] = [
    PLATFORM,
    include_str!("vshard.lua"),
    include_str!("vshard_apply.lua"),
];

/// Removes the hand that an earlier agent left in the instance.
const FORGET: &str = "rawset(_G, 'tarsec_vshard', nil) return true";

/// What kind of instance it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Kind {
    /// A configured storage.
    pub(crate) storage: bool,
    /// It has a configured router.
    pub(crate) router: bool,
    /// The application has loaded vshard.
    pub(crate) loaded: bool,
}

/// A central configuration as it was found.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// The `ModifyIndex` of its key.
    pub(crate) index: u64,
    /// The key's value, as an operator wrote it.
    pub(crate) text: String,
}

/// What an instance is told.
pub(crate) struct Order<'a> {
    pub(crate) sequence: u64,
    pub(crate) wanted: &'a Wanted,
    pub(crate) config: Option<&'a Text>,
    pub(crate) login: Option<&'a (String, Secret)>,
    pub(crate) is_router: bool,
    /// `REPLICATION=follow`: its upstream is decided elsewhere.
    pub(crate) follows: bool,
}

#[derive(Serialize)]
struct Login<'a> {
    user: &'a str,
    password: &'a str,
}

#[derive(Serialize)]
struct Words<'a> {
    owner: Option<&'a str>,
    sequence: u64,
    masters: &'a BTreeMap<String, Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<Login<'a>>,
    is_storage: bool,
    is_router: bool,
    follows: bool,
}

/// The instance's answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply {
    /// The work has not ended yet.
    pub(crate) busy: bool,
    /// What there is of vshard now.
    #[serde(default)]
    pub(crate) vshard: Option<Look>,
    /// Another agent owns the instance.
    #[serde(default)]
    pub(crate) superseded_by: Option<String>,
}

/// Brings the files into the instance, so that it can follow the locks.
pub(crate) async fn install(conn: &Connection, deadline: Duration) -> Result<Kind, RequestError> {
    for source in SOURCES {
        let _: bool = conn.eval(source, &(), deadline).await?;
    }
    conn.call("tarsec_vshard.role", &(), deadline).await
}

/// Takes them away again, for `VSHARD=off` after another setting.
pub(super) async fn remove(conn: &Connection, deadline: Duration) -> Result<(), RequestError> {
    let _: bool = conn.eval(FORGET, &(), deadline).await?;
    Ok(())
}

/// What there is of vshard.
pub(crate) async fn look(
    conn: &Connection,
    deadline: Duration,
) -> Result<Option<Look>, RequestError> {
    let look: Option<Look> = conn.call("tarsec_vshard.look", &(), deadline).await?;
    Ok(look.map(said::look))
}

/// Tells the instance what its configuration is to say. It answers before the deadline, whether or not it has ended.
pub(crate) async fn apply(
    conn: &Connection,
    owner: Option<&str>,
    order: &Order<'_>,
    deadline: Duration,
) -> Result<Reply, RequestError> {
    let password = order.login.map(|(_, password)| password.get());
    let user = order.login.map(|(user, _)| user.as_str());
    let login = user.zip(password.as_deref());
    let words = Words {
        owner,
        sequence: order.sequence,
        masters: &order.wanted.masters,
        config: order.config.map(|config| config.text.as_str()),
        config_index: order.config.map(|config| config.index),
        login: login.map(|(user, password)| Login { user, password }),
        is_storage: !order.is_router,
        is_router: order.is_router,
        follows: order.follows,
    };
    let patience_s = (deadline / 2).as_secs_f64();
    let reply: Reply = conn
        .call("tarsec_vshard.apply", &(words, patience_s), deadline)
        .await?;
    Ok(Reply {
        vshard: reply.vshard.map(said::look),
        ..reply
    })
}
