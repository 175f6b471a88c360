//! Whether the master's rows arrive at a replica, and whether anybody gets those of this instance. Its check rests on that, and nothing about safety does: a replica
//! that gets nothing may still have rows that nobody else has, so elections do not ask.

use std::time::Duration;

use crate::state::lag::{self, Lag};
use crate::state::{Feed, State};
use crate::words::observed::{Peer, Probe};
use crate::words::record::Record;
use crate::words::timing::Tick;

/// What one word of the guard shows.
struct Look {
    /// Somebody's rows are received.
    connected: bool,
    /// There are rows that were not there the last time.
    grew: bool,
    /// Rows arrive, or there is nothing to arrive.
    sound: bool,
    /// Why the replica does not replicate from the master itself, or why that does not help.
    fault: Option<Fault>,
}

/// Why a replica is not fed by the master itself.
struct Fault {
    /// What it is.
    head: String,
    /// Tarantool's own words.
    message: Option<String>,
    /// It is nothing to speak of before it has lasted.
    may_be_a_moment: bool,
}

impl Fault {
    /// The words to show, after `known`. Tarantool's message may be missing between two tries, and names another port and
    /// file descriptor with each: neither is news, and each news is a write to Consul.
    fn words(self, known: Option<&String>) -> String {
        let known = known.filter(|known| known.starts_with(&self.head));
        let words = match self.message {
            Some(message) => format!("{}: {message}", self.head),
            None => return known.cloned().unwrap_or(self.head),
        };
        let unnumbered = |text: &str| text.replace(|digit: char| digit.is_ascii_digit(), "");
        let same = known.filter(|known| unnumbered(known) == unnumbered(&words));
        same.cloned().unwrap_or(words)
    }
}

impl State {
    /// Takes note of what a word of the guard says about the rows that arrive. Time counts up to the master's last word
    /// alone: without a master, or without Consul, nobody knows whether there is anything to arrive, and all stays as it
    /// was.
    ///
    /// `begun_at`: when the instance was asked for that word.
    pub(super) fn note_feed(&mut self, probe: &Probe, begun_at: Tick, now: Tick) {
        let before = self.instance.feed.take();
        let Some((record, spoke_at)) = self.master_elsewhere(probe) else {
            let leads = probe.guard.leased;
            self.instance.feed = before.filter(|feed| feed.broken && !leads);
            return;
        };
        let look = self.look_at_feed(record, probe);
        let same = before.as_ref().filter(|feed| feed.from == record.instance);
        let since = same.and_then(|feed| feed.failing_since).unwrap_or(now);
        let failing_since = (!look.sound).then_some(since);
        let limit = self.settings.replica_max_idle;
        let over = limit > Duration::ZERO && spoke_at.since(since) > limit;
        // Another master is no proof that anything arrives.
        let was_broken = before.as_ref().is_some_and(|feed| feed.broken);
        let broken = !look.sound && (over || was_broken);
        let fault = look.fault.filter(|fault| broken || !fault.may_be_a_moment);
        let known = before.as_ref().and_then(|feed| feed.fault.as_ref());
        let mut lag = same.map_or_else(Lag::default, |feed| feed.lag.clone());
        // What it said before it was asked tells nothing of that word's moment.
        if begun_at >= spoke_at {
            let look = lag::Look {
                record,
                spoke_at,
                probe,
                grew: look.grew,
                connected: look.connected,
                failing_since,
            };
            lag.note(&look, now);
        }
        self.instance.feed = Some(Feed {
            from: record.instance.clone(),
            failing_since,
            fault: fault.map(|fault| fault.words(known)),
            broken,
            lag,
        });
    }

    /// Takes note of whether anybody replicates from the instance.
    pub(super) fn note_followers(&mut self, probe: &Probe, now: Tick) {
        let alone = probe.replication.iter().all(|it| it.uuid == probe.uuid);
        let since = self.instance.unfollowed_since.unwrap_or(now);
        self.instance.unfollowed_since = (!alone && !probe.has_replica()).then_some(since);
    }

    /// Rows may come by way of other members: whether they come is what counts, and on a day without writes, whether
    /// there is anybody from whom they could.
    fn look_at_feed(&self, record: &Record, probe: &Probe) -> Look {
        let name = &record.name;
        let connected = probe.followed().next().is_some();
        let lacks = probe.lacks_rows_of(&record.vclock);
        let earlier = self.instance.probe.as_ref();
        let grew = earlier.is_some_and(|earlier| earlier.lacks_rows_of(&probe.vclock));
        let arrives = !lacks || grew;
        let peer = probe.peer(&record.instance);
        let fault = if probe.follows(&record.instance) {
            (!arrives).then(|| Fault {
                head: format!("{name} is followed, but rows that it has do not arrive"),
                message: None,
                may_be_a_moment: true,
            })
        } else {
            Some(fault_of(name, peer))
        };
        Look {
            connected,
            grew,
            sound: connected && arrives,
            fault,
        }
    }
}

/// Why a master is not followed. The words are those of `enum applier_state` in Tarantool's `src/box/applier.h`.
fn fault_of(name: &str, peer: Option<&Peer>) -> Fault {
    let Some(upstream) = peer.and_then(|peer| peer.upstream.as_ref()) else {
        return Fault {
            head: format!("it does not replicate from {name}"),
            message: None,
            may_be_a_moment: false,
        };
    };
    let head = match &*upstream.status {
        "stopped" => format!("replication from {name} has stopped"),
        _ => format!("replication from {name} is not connected"),
    };
    Fault {
        head,
        message: upstream.message.clone(),
        may_be_a_moment: false,
    }
}
