//! What stands beside the lock key, read by the names of its keys: Consul → the core's words.
//!
//! A prefix holds whatever others put there, and its length is theirs. So a board is the orders' keys, and the keys of the
//! members that the core knows; the names under `members/` are listed besides, and the keys of instances that nobody has
//! mentioned yet are read by them. Whatever was too much is named on the board.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as Turn;
use tokio::time::timeout;

use crate::consul::{Found, VALUE_LIMIT_BYTES, Values};
use crate::decide::board::{self, Ballot, Board, HISTORY_LINES, HistoryLine};
use crate::decide::event::Event;
use crate::decide::sight::ConsulFault;
use crate::decide::term::Term;
use crate::decide::timing::Tick;
use crate::execute::Executor;
use crate::keys::{ClusterKey, ReplicaSetKey, ReplicaSetKeys, is_uuid, json_bytes};

/// Keys of instances that nobody has mentioned are read up to this number: a replica set has 32 members at most, and as many
/// may have left their keys behind.
const STRANGERS: usize = 64;

/// How long strangers' keys are waited for where nothing rests on them: a fraction of an election's window.
const STRANGERS_PATIENCE: Duration = Duration::from_millis(50);

/// For the log and the reason.
const WHAT: &str = "read members, ballots and orders";

/// How the board is read, for all of an agent's reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct BoardReader {
    known: Arc<Mutex<Known>>,
    /// At most one look goes along with refreshes at a time.
    beside: Arc<Turn<()>>,
    last: Arc<Mutex<Option<Listing>>>,
}

/// What the core knows, and needs.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The instances whose keys are read.
    members: Arc<[String]>,
    /// Something rests on the keys of all others, too.
    needs_all: bool,
}

/// The names that were found under `members/`.
#[derive(Debug, Clone)]
struct Listing {
    asked_at: Tick,
    /// Instances that nobody has mentioned, as far as they are read.
    strangers: Vec<String>,
    /// There were more.
    is_cut: bool,
}

impl BoardReader {
    /// Whose keys are read from now on, and whether those of all others are waited for.
    pub(crate) fn knows(&self, mut members: Vec<String>, needs_all: bool) {
        members.retain(|uuid| is_uuid(uuid));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.needs_all = needs_all;
        if *known.members != *members {
            known.members = members.into();
        }
    }

    fn known(&self) -> Known {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// What was listed no earlier than that.
    fn listed_since(&self, since: Tick) -> Option<Listing> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().filter(|last| last.asked_at >= since)
    }

    fn remember(&self, listing: &Listing) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(listing.clone());
    }
}

/// The board as it was found. A value that is not what its key says counts as absent.
fn board_of(keys: &ReplicaSetKeys, values: Values) -> Board {
    let mut board = Board::default();
    // Present is enough for a pause, whatever somebody wrote there.
    for (key, _) in &values.too_long {
        if *key == keys.pause() || *key == keys.cluster_pause() && board.pause.is_none() {
            board.pause = Some(pause(b"", *key == keys.cluster_pause()));
        }
        board.unread.push(format!(
            "the value of {key} has more than {VALUE_LIMIT_BYTES} bytes, is not read and counts as garbage: remove it"
        ));
    }
    board.unread.sort_unstable();
    for found in values.found {
        let Found {
            key,
            modify_index,
            session: _,
            value,
        } = found;
        let Some(known) = keys.read(&key) else {
            continue;
        };
        match known {
            ClusterKey::OfReplicaSet(_, ReplicaSetKey::Member(uuid)) => board
                .members
                .extend(board::parse(&value).map(|member| (uuid.to_owned(), member))),
            ClusterKey::OfReplicaSet(_, ReplicaSetKey::Ballot(uuid)) => board
                .ballots
                .extend(board::parse(&value).map(|ballot| (uuid.to_owned(), ballot))),
            ClusterKey::OfReplicaSet(_, ReplicaSetKey::Switchover) => {
                board.switchover = board::parse(&value).map(|order| (modify_index, order));
            }
            // The replica set's own goes first.
            ClusterKey::OfReplicaSet(_, ReplicaSetKey::Pause) => {
                board.pause = Some(pause(&value, false));
            }
            ClusterKey::Pause if board.pause.is_none() => board.pause = Some(pause(&value, true)),
            ClusterKey::Pause
            | ClusterKey::Waiting
            | ClusterKey::Router
            | ClusterKey::OfReplicaSet(_, ReplicaSetKey::Lock | ReplicaSetKey::History) => {}
        }
    }
    board
}

fn pause(value: &[u8], cluster: bool) -> board::Pause {
    let pause: board::Pause = serde_json::from_slice(value).unwrap_or_default();
    board::Pause { cluster, ..pause }
}

/// The keys of these instances.
fn of_members<'m>(
    keys: &ReplicaSetKeys,
    members: impl IntoIterator<Item = &'m String>,
) -> impl Iterator<Item = String> {
    members
        .into_iter()
        .flat_map(|uuid| [keys.member(uuid), keys.ballot(uuid)])
}

impl Executor {
    /// A holder reads its orders with each refresh, side by side: neither waits for the other, nor rests on it.
    pub(crate) fn look_beside(&self) {
        let Ok(turn) = Arc::clone(&self.board.beside).try_lock_owned() else {
            return;
        };
        let executor = self.clone();
        tokio::spawn(async move {
            let asked_at = executor.clock.now();
            let listed_since = asked_at.before(executor.config.member_interval);
            let result = executor.board(Some(listed_since)).await;
            let event = Event::BoardSeen { asked_at, result };
            // The receiver is gone only when the agent ends.
            let _ = executor.events.send(event).await;
            drop(turn);
        });
    }

    pub(crate) async fn read_board(&self) -> Result<Box<Board>, ConsulFault> {
        self.board(None).await
    }

    /// The board as it stands, no older than the call; the list of the members' names may be as old as `listed_since`.
    async fn board(&self, listed_since: Option<Tick>) -> Result<Box<Board>, ConsulFault> {
        let Some(keys) = &self.keys else {
            return Ok(Box::default());
        };
        let Known { members, needs_all } = self.board.known();
        let mut exact = vec![keys.switchover(), keys.pause(), keys.cluster_pause()];
        exact.extend(of_members(keys, &*members));
        let listing = async {
            match listed_since.and_then(|since| self.board.listed_since(since)) {
                Some(listing) => Ok(listing),
                None => self.list_members(keys, &members).await,
            }
        };
        let read = self.consul.read_keys(WHAT, &exact);
        let (mut values, listing) =
            tokio::try_join!(async { read.await.map_err(ConsulFault::from) }, listing)?;
        let strangers = listing.strangers.iter();
        let strangers = strangers.filter(|uuid| !members.contains(uuid));
        let strangers: Vec<String> = of_members(keys, strangers).collect();
        let read = self.read_strangers(&strangers, needs_all).await?;
        let is_late = read.is_none();
        let read = read.unwrap_or_default();
        values.found.extend(read.found);
        values.too_long.extend(read.too_long);
        let mut board = board_of(keys, values);
        board.misses_members = listing.is_cut || is_late;
        if is_late && needs_all {
            board.unread.push(format!(
                "the keys of {} instances under {} that nobody has mentioned could not be read in time: remove those of \
                 instances that are gone for good",
                listing.strangers.len(),
                keys.members()
            ));
        }
        if listing.is_cut {
            board.unread.push(format!(
                "more keys stand under {} than are read, {STRANGERS} beside the members': remove those of instances that are gone for good",
                keys.members()
            ));
        }
        Ok(Box::new(board))
    }

    /// `None`: not in time. As long as a record says who is master nothing rests on them, so they are hardly waited for;
    /// what was read of them is remembered, so that the next time takes less.
    async fn read_strangers(
        &self,
        strangers: &[String],
        needs_all: bool,
    ) -> Result<Option<Values>, ConsulFault> {
        if strangers.is_empty() {
            return Ok(Some(Values::default()));
        }
        let patience = match needs_all {
            true => self.config.timing.healthcheck_timeout(),
            false => STRANGERS_PATIENCE,
        };
        let read = self.consul.read_strange_keys(WHAT, strangers);
        match timeout(patience, read).await {
            Ok(Ok(values)) => Ok(Some(values)),
            Ok(Err(error)) if needs_all => Err(error.into()),
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    async fn list_members(
        &self,
        keys: &ReplicaSetKeys,
        known: &[String],
    ) -> Result<Listing, ConsulFault> {
        let asked_at = self.clock.now();
        let prefix = keys.members();
        let listed = self.consul.watch_names(&prefix, 0, Duration::ZERO).await;
        let (_, names) = listed.map_err(ConsulFault::from)?;
        let is_cut = names.is_none();
        let names = names.unwrap_or_default();
        let mut strangers: Vec<String> = names
            .iter()
            .filter_map(|name| name.strip_prefix(&*prefix))
            .map(str::to_owned)
            .filter(|uuid| is_uuid(uuid) && !known.contains(uuid))
            .collect();
        let is_cut = is_cut || strangers.len() > STRANGERS;
        strangers.truncate(STRANGERS);
        let listing = Listing {
            asked_at,
            strangers,
            is_cut,
        };
        self.board.remember(&listing);
        Ok(listing)
    }

    /// Its own ballot and, where they can be read, the others'. With index 0 they are read again at once.
    pub(crate) async fn write_ballot(
        &self,
        ballot: &Ballot,
    ) -> Result<(u64, BTreeMap<String, Ballot>), ConsulFault> {
        let Some(keys) = &self.keys else {
            return Ok((1, BTreeMap::new()));
        };
        let key = keys.ballot(&ballot.instance);
        let index = self.consul.set_key(&key, &json_bytes(ballot)).await?;
        // That it is written does not depend on what else can be read.
        Ok(match self.ballots(keys).await {
            Ok(ballots) => (index, ballots),
            Err(_) => (
                0,
                BTreeMap::from([(ballot.instance.clone(), ballot.clone())]),
            ),
        })
    }

    pub(crate) async fn read_ballots(
        &self,
        after: u64,
        wait: Duration,
    ) -> Result<(u64, BTreeMap<String, Ballot>), ConsulFault> {
        let Some(keys) = &self.keys else {
            return Ok((1, BTreeMap::new()));
        };
        let prefix = keys.ballots();
        let (index, _) = self.consul.watch_names(&prefix, after, wait).await?;
        Ok((index, self.ballots(keys).await?))
    }

    async fn ballots(
        &self,
        keys: &ReplicaSetKeys,
    ) -> Result<BTreeMap<String, Ballot>, ConsulFault> {
        let of_all: Vec<String> = self
            .board
            .known()
            .members
            .iter()
            .map(|it| keys.ballot(it))
            .collect();
        let values = self.consul.read_keys("read ballots", &of_all).await?;
        Ok(board_of(keys, values).ballots)
    }

    /// The newest lines, the oldest first.
    pub(crate) async fn read_history(&self) -> Result<Vec<HistoryLine>, ConsulFault> {
        let Some(keys) = &self.keys else {
            return Ok(Vec::new());
        };
        let prefix = keys.history();
        let listed = self.consul.watch_names(&prefix, 0, Duration::ZERO).await?;
        let Some(names) = listed.1 else {
            return Err(ConsulFault {
                why: format!(
                    "more keys stand under {prefix} than are read: remove those that are no term's"
                ),
                denied: false,
            });
        };
        let terms = names.iter().filter_map(|name| name.strip_prefix(&*prefix));
        let terms = terms.filter_map(|term| term.parse::<u64>().ok());
        let mut terms: Vec<Term> = terms.filter_map(|term| term.try_into().ok()).collect();
        terms.sort_unstable();
        let newest = terms.iter().rev().take(HISTORY_LINES as usize);
        let newest: Vec<String> = newest.map(|term| keys.term(*term)).collect();
        let values = self.consul.read_keys("read the history", &newest).await?;
        let lines = values.found.iter();
        let mut lines: Vec<HistoryLine> = lines
            .filter_map(|found| board::parse(&found.value))
            .collect();
        lines.sort_by_key(|line| line.term);
        Ok(lines)
    }
}
