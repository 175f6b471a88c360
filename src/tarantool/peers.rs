//! The other members' guards, asked by the master's agent for their promises (R6).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use tokio::time::timeout;

use super::conn::{Connection, RequestError};
use super::iproto::code;
use crate::config::{PeerConfig, TarantoolAddr, TarantoolConfig};
use crate::decide::addresses::Whereabouts;
use crate::decide::term::Term;
use crate::decide::unguarded::Unguarded;
use crate::decide::vclock::Vclock;
use crate::errors::with_causes;

/// The way to the other members. Clones share its connections.
#[derive(Clone)]
pub struct Peers {
    config: TarantoolConfig,
    asks: Way,
    deadline: Duration,
    /// Connections to the members that were asked last, by address.
    connections: Arc<Mutex<BTreeMap<String, Connection>>>,
}

/// How a member's guard is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Itself, and by an eval the instance that has none, as the user as whom our own agent installed its guard.
    Guard,
    /// By the function that an operator made for `PEER_USER`, who may do nothing else.
    Function,
}

impl Way {
    const fn function(self) -> &'static str {
        match self {
            Self::Guard => "tarsec_guard.promise",
            Self::Function => "tarsec_promise",
        }
    }
}

/// A guard's answer to the agent that asks for its promise.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    uuid: String,
    #[serde(default)]
    promised: bool,
    /// The word of `tarsec_promise` in an instance without a guard: whether it is read-only.
    #[serde(default)]
    ro: Option<bool>,
    /// The guard knows no member that was not asked, and its commits have landed. A guard of an earlier version does
    /// not say so.
    #[serde(default)]
    for_all: bool,
    #[serde(default)]
    refused: Option<String>,
}

/// The instance that asks, its term, and for how many nanoseconds. For R3 also all members that are asked, and the rows
/// of the instance that asks: each guard is to say that it knows no other member and has no other rows.
type Question<'a> = (
    &'a str,
    Term,
    u64,
    Option<Vec<&'a String>>,
    Option<&'a Vclock>,
);

/// What the members said, by instance UUID.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Whether each promised, and if not why.
    pub promises: BTreeMap<String, Result<(), String>>,
    /// What is known of the members that did not promise.
    pub unguarded: Unguarded,
}

/// Why a member did not promise.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// Its guard said so, or it is read-only without one.
    Said(String),
    /// It is writable, and has no guard.
    Unguarded(String),
    /// The member was not heard.
    Silent(String),
}

impl Refused {
    fn why(self) -> String {
        match self {
            Self::Said(why) | Self::Unguarded(why) | Self::Silent(why) => why,
        }
    }
}

/// Why there is no answer.
enum Unanswered {
    /// The instance is there, and has no guard.
    NoGuard(Connection),
    Because(String),
}

impl Unanswered {
    fn of(error: &RequestError, connection: Connection, way: Way) -> Self {
        match (way, error.code()) {
            (Way::Guard, Some(code::NO_SUCH_PROC)) => Self::NoGuard(connection),
            // Whether it has a guard nobody says then: it counts as not heard.
            (Way::Function, Some(code::NO_SUCH_PROC | code::ACCESS_DENIED)) => {
                Self::Because(format!(
                    "{}; PEER_USER needs the function that docs/tarantool-grants-peer.lua makes and grants",
                    with_causes(error)
                ))
            }
            (Way::Guard | Way::Function, Some(_) | None) => Self::Because(with_causes(error)),
        }
    }
}

/// What is known of an instance that has no guard.
fn without_guard(address: &str, ro: bool) -> Refused {
    let why = |besides: &str| format!("{}{besides}", no_guard(address));
    if ro {
        Refused::Said(why(""))
    } else {
        Refused::Unguarded(why(", and it is writable"))
    }
}

fn no_guard(address: &str) -> String {
    format!("{address}: it has no guard, since no agent of this version ever attached")
}

/// The question to an instance without a guard.
const UNGUARDED: &str = "return {uuid = box.info.uuid, ro = box.info.ro}";

/// Its answer.
#[derive(Debug, Deserialize)]
struct Bare {
    uuid: String,
    ro: bool,
}

impl Peers {
    /// Connects to no member before it is asked. `config` has the login for all of them, unless `peers` does; each
    /// question has `deadline` to be answered.
    #[must_use]
    pub fn new(config: TarantoolConfig, peers: &PeerConfig, deadline: Duration) -> Self {
        let (config, asks) = match &peers.login {
            Some((user, password)) => {
                let user = Some(user.clone());
                let password = password.clone();
                let config = TarantoolConfig {
                    user,
                    password,
                    ..config
                };
                (config, Way::Function)
            }
            None => (config, Way::Guard),
        };
        Self {
            config,
            asks,
            deadline,
            connections: Arc::default(),
        }
    }

    /// Asks all of them at once to refuse any promotion for so long while `instance` is master of `term`. With
    /// `for_all` (R3) each is also to say that it knows no other member, that its commits have landed, and that it has
    /// no rows but those.
    pub async fn ask(
        &self,
        term: Term,
        instance: &str,
        lasting: Duration,
        members: BTreeMap<String, Whereabouts>,
        for_all: Option<Vclock>,
    ) -> Answers {
        self.connections()
            .retain(|known, _| members.values().any(|it| it.as_ref() == Ok(known)));
        let lasting_ns = u64::try_from(lasting.as_nanos()).unwrap_or(u64::MAX);
        let asked = for_all.as_ref().map(|_| members.keys().collect());
        let question = (instance, term, lasting_ns, asked, for_all.as_ref());
        let answers = members.iter().map(async |(uuid, address)| {
            let answer = match address {
                Ok(address) => self.ask_one(uuid, address, &question).await,
                Err(why) => Err(Refused::Silent(why.clone())),
            };
            (uuid.clone(), answer)
        });
        let mut all = Answers::default();
        for (uuid, answer) in join_all(answers).await {
            let said = &mut all.unguarded;
            match &answer {
                Ok(()) | Err(Refused::Said(_)) => {}
                Err(Refused::Unguarded(_)) => {
                    said.writable.insert(uuid.clone());
                }
                Err(Refused::Silent(_)) => {
                    said.silent.insert(uuid.clone());
                }
            }
            all.promises.insert(uuid, answer.map_err(Refused::why));
        }
        all
    }

    async fn ask_one(
        &self,
        uuid: &str,
        address: &str,
        question: &Question<'_>,
    ) -> Result<(), Refused> {
        let Ok(reply) = timeout(self.deadline, self.exchange(address, question)).await else {
            // Whatever that connection is good for, the next question comes over a new one.
            self.connections().remove(address);
            let why = format!("{address} did not answer within {:?}", self.deadline);
            return Err(Refused::Silent(why));
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(Unanswered::NoGuard(connection)) => {
                return Err(self.look_at_bare(uuid, address, &connection).await);
            }
            Err(Unanswered::Because(why)) => {
                return Err(Refused::Silent(format!("{address}: {why}")));
            }
        };
        let refused = match reply {
            Reply { uuid: found, .. } if found != uuid => {
                let why = format!("another instance ({found}) answers at {address}");
                return Err(Refused::Silent(why));
            }
            Reply { ro: Some(ro), .. } => return Err(without_guard(address, ro)),
            Reply {
                promised: true,
                for_all,
                ..
            } if for_all || question.3.is_none() => return Ok(()),
            Reply { promised: true, .. } => {
                "its guard is of an earlier version, which does not say whom it knows".to_owned()
            }
            Reply { refused, .. } => refused.unwrap_or_else(|| "it refused".to_owned()),
        };
        Err(Refused::Said(refused))
    }

    /// No agent has attached there since its process began: nothing would make it read-only.
    async fn look_at_bare(&self, uuid: &str, address: &str, connection: &Connection) -> Refused {
        let word: Result<Bare, _> = connection.eval(UNGUARDED, &(), self.deadline).await;
        let why = |besides: &str| format!("{}; {besides}", no_guard(address));
        match word {
            Ok(word) if word.uuid != uuid => Refused::Silent(why("another instance answers there")),
            Ok(Bare { ro, .. }) => without_guard(address, ro),
            Err(error) => Refused::Silent(why(&with_causes(&error))),
        }
    }

    /// Over the connection that stands, or a new one. A promise may be asked for twice.
    async fn exchange(&self, address: &str, question: &Question<'_>) -> Result<Reply, Unanswered> {
        let known = self.connections().get(address).cloned();
        if let Some(connection) = known {
            match self.call(&connection, question).await {
                Err(RequestError::Closed(_)) => {}
                answered => {
                    return answered.map_err(|error| Unanswered::of(&error, connection, self.asks));
                }
            }
        }
        let config = TarantoolConfig {
            addr: parse(address),
            ..self.config.clone()
        };
        let connection = Connection::open(&config, self.deadline)
            .await
            .map_err(|error| Unanswered::Because(with_causes(&error)))?;
        self.connections()
            .insert(address.to_owned(), connection.clone());
        self.call(&connection, question)
            .await
            .map_err(|error| Unanswered::of(&error, connection, self.asks))
    }

    async fn call(
        &self,
        connection: &Connection,
        question: &Question<'_>,
    ) -> Result<Reply, RequestError> {
        connection
            .call(self.asks.function(), question, self.deadline)
            .await
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<String, Connection>> {
        // No panic can leave the map half-changed.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// As `box.info.replication[n].upstream.peer` and a member's `uri` have it.
fn parse(address: &str) -> TarantoolAddr {
    match address.strip_prefix("unix/:") {
        Some(path) => TarantoolAddr::Unix(PathBuf::from(path)),
        None if address.starts_with('/') => TarantoolAddr::Unix(PathBuf::from(address)),
        None => TarantoolAddr::Tcp(address.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decide::addresses::PeerAddrs;
    use crate::secrets::Secret;

    const LASTING: Duration = Duration::from_secs(10);

    proptest! {
        #[test]
        fn any_address_of_a_peer_is_one(address: String) {
            match parse(&address) {
                TarantoolAddr::Tcp(text) => prop_assert_eq!(text, address),
                TarantoolAddr::Unix(path) => prop_assert!(address.ends_with(path.to_str().unwrap_or("?"))),
            }
        }
    }

    fn peers(deadline: Duration) -> Peers {
        let config = TarantoolConfig {
            addr: TarantoolAddr::Tcp("127.0.0.1:1".to_owned()),
            user: None,
            password: Secret::default(),
            control: None,
        };
        let peers = PeerConfig {
            addrs: PeerAddrs::default(),
            login: None,
        };
        Peers::new(config, &peers, deadline)
    }

    fn members<const N: usize>(members: [(&str, &str); N]) -> BTreeMap<String, Whereabouts> {
        members
            .map(|(uuid, address)| (uuid.to_owned(), Ok(address.to_owned())))
            .into()
    }

    #[test]
    fn addresses_are_those_of_replication_and_of_members() {
        let tcp = |address: &str| TarantoolAddr::Tcp(address.to_owned());
        let unix = || TarantoolAddr::Unix(PathBuf::from("/run/a.sock"));
        assert_eq!(parse("10.0.0.2:3301"), tcp("10.0.0.2:3301"));
        assert_eq!(parse("unix/:/run/a.sock"), unix());
        assert_eq!(parse("/run/a.sock"), unix());
    }

    #[tokio::test]
    async fn nobody_to_ask_is_answered_at_once() {
        let peers = peers(Duration::ZERO);
        let answers = peers
            .ask(
                Term::from(7),
                "a",
                LASTING,
                members([]),
                Some(Vclock::new()),
            )
            .await;
        assert_eq!(answers, Answers::default());
    }

    /// The silent member costs the others nothing, and itself no more than the deadline.
    #[tokio::test]
    async fn each_is_answered_for_on_its_own() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [
            silent.local_addr().unwrap().to_string(),
            closed.local_addr().unwrap().to_string(),
        ];
        drop(closed);
        let mut asked = members([("silent", &addresses[0]), ("closed", &addresses[1])]);
        asked.insert("unknown".to_owned(), Err("it is not known".to_owned()));
        let answers = peers(Duration::from_millis(200))
            .ask(Term::from(7), "a", LASTING, asked, None)
            .await;
        assert_eq!(answers.unguarded.silent.len(), 3);
        let why = |uuid: &str| answers.promises[uuid].clone().unwrap_err();
        // Whichever limit is first: that of the question, or that of the connection.
        let said = why("silent");
        assert!(said.contains("within 200ms"), "{said}");
        let said = why("closed");
        assert!(said.contains("nothing listens there"), "{said}");
        assert_eq!(why("unknown"), "it is not known");
    }

    /// What `tarsec_promise` answers in an instance without a guard, and what a guard answers.
    #[test]
    fn a_member_without_a_guard_is_told_from_a_guard_that_refuses() {
        let word = |json: &str| serde_json::from_str::<Reply>(json).unwrap();
        assert_eq!(word(r#"{"uuid":"u","ro":true}"#).ro, Some(true));
        assert_eq!(word(r#"{"uuid":"u","promised":false}"#).ro, None);
        assert!(matches!(without_guard("a:1", true), Refused::Said(_)));
        assert!(matches!(without_guard("a:1", false), Refused::Unguarded(_)));
    }
}
