//! What stands in Consul → views. Pure: the same keys give the same view.

use std::collections::BTreeMap;
use std::time::Duration;

use super::notes;
use super::past::rows_at_risk;
use super::sorted::Sorted;
use super::view::{
    ClusterView, JSON_VERSION, LeaseView, LockSight, MemberRole, MemberView, SetState, SetView,
    Sign, Signs, patience, worst,
};
use crate::consul::Found;
use crate::decide::board::{Ballot, Member, Party};
use crate::decide::lag::Behind;
use crate::decide::problems;
use crate::decide::record::{Record, RecordError, Status};
use crate::decide::term::Term;
use crate::decide::timing::moment_ms;
use crate::keys::ClusterKeys;

/// All that stands under the cluster's prefix, and its lock keys wherever they are.
pub(crate) fn cluster(
    keys: &ClusterKeys,
    found: &[Found],
    signs: &Signs,
    at_ms: u64,
) -> ClusterView {
    let sorted = Sorted::of(keys, found);
    let sets: Vec<SetView> = sorted
        .sets
        .iter()
        .map(|(uuid, keys)| {
            let lock = lock(keys.lock, &keys.lock_key);
            let sign = signs.get(&keys.lock_key).copied().unwrap_or_default();
            let own_pause = keys.pause.is_some();
            let pause = keys.pause.clone().or_else(|| sorted.pause.clone());
            Set {
                lock,
                sign,
                members: &keys.members,
                ballots: &keys.ballots,
            }
            .view(SetView {
                pause,
                own_pause,
                switchover_index: keys.switchover_index,
                switchover: keys.switchover.clone(),
                rows_at_risk: rows_at_risk(&keys.history),
                history: keys.history.clone(),
                history_left_out: keys.history_left_out,
                ..SetView::empty(uuid)
            })
        })
        .collect();
    let mut view = ClusterView {
        v: JSON_VERSION,
        cluster: keys.cluster().to_owned(),
        at: at_ms / 1000,
        at_ms,
        verdict: worst(&sets),
        pause: sorted.pause,
        notes: Vec::new(),
        replicasets: sets,
        routers: sorted.routers,
        waiting: sorted.waiting,
    };
    view.notes = notes::about_vshard(&view);
    view.judge();
    view
}

type Lock = (LockSight, Option<RecordError>);

fn lock(found: Option<&Found>, key: &str) -> Lock {
    let mut sight = LockSight {
        key: key.to_owned(),
        ..LockSight::default()
    };
    let Some(found) = found else {
        return (sight, None);
    };
    sight.index = found.modify_index;
    sight.session.clone_from(&found.session);
    match Record::parse(&found.value) {
        Ok(record) => {
            sight.record = Some(record);
            (sight, None)
        }
        Err(error) => (sight, Some(error)),
    }
}

/// What its agent says of how far behind this holder it is.
fn behind_holder<'a>(record: &Record, member: &'a Member) -> Option<&'a Behind> {
    let behind = member.behind.as_ref();
    behind.filter(|behind| behind.of == record.instance)
}

/// As the catalog shows it but for a pause.
fn health(member: &Member) -> &str {
    match member.cut_off {
        Some(_) => "critical",
        None => &member.health,
    }
}

/// What a view of a replica set is made of.
struct Set<'a> {
    lock: Lock,
    sign: Sign,
    members: &'a BTreeMap<String, Option<Member>>,
    ballots: &'a BTreeMap<String, Ballot>,
}

impl Set<'_> {
    fn view(self, mut view: SetView) -> SetView {
        let (sight, error) = &self.lock;
        if let Some(record) = &sight.record {
            view.holder = Some(Party {
                instance: record.instance.clone(),
                name: record.name.clone(),
            });
            view.term = Some(record.term);
            view.since = Some(record.since);
            view.since_ms = Some(record.began_ms());
            view.cause = Some(record.cause);
            view.reason = Some(record.reason.clone());
            if let Some(line) = view.history.iter().find(|line| line.term == record.term) {
                view.ended = line.ended;
                view.by.clone_from(&line.by);
                view.outage = line.outage;
            }
            view.failsafe = record.failsafe;
            view.paused = record.paused;
            view.lease = sight.session.as_ref().map(|_| self.lease(record));
        }
        view.state = self.state(&view);
        view.members = self.member_views();
        view.lock = sight.clone();
        let mut view = view.told_apart();
        let members = self.members.values().flatten();
        let problems = problems::of(members, sight.record.as_ref());
        view.notes = notes::of(&view, error.as_ref(), problems);
        view.verdict = view.judge();
        view
    }

    fn lease(&self, record: &Record) -> LeaseView {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let refreshed_ms_ago = self.sign.changed_ago.map(ms);
        LeaseView {
            lease_ms: record.lease_ms,
            watched_ms: ms(self.sign.watched),
            refreshed_ms_ago,
            left_ms: refreshed_ms_ago.map(|ago| record.lease_ms.saturating_sub(ago)),
        }
    }

    fn state(&self, view: &SetView) -> SetState {
        let (sight, error) = &self.lock;
        match (&sight.record, &sight.session) {
            (None, _) if error.is_some() => SetState::Unreadable,
            (None, _) | (Some(_), None) => SetState::None,
            (Some(record), Some(_)) => match record.status {
                Status::Active if view.silent_for() > patience(record.lease()) => SetState::Silent,
                Status::Active => SetState::Master,
                Status::Promoting => SetState::Promoting,
                Status::Fenced => SetState::None,
            },
        }
    }

    fn member_views(&self) -> Vec<MemberView> {
        let record = self.lock.0.record.as_ref();
        let named = record
            .into_iter()
            .flat_map(|record| record.members.iter().chain([&record.instance]));
        let mut all: BTreeMap<&str, Option<&Member>> =
            named.map(|uuid| (uuid.as_str(), None)).collect();
        for (uuid, member) in self.members {
            all.insert(uuid, member.as_ref());
        }
        let mut views: Vec<MemberView> = all
            .into_iter()
            .map(|(uuid, member)| self.member(uuid, member))
            .collect();
        views.sort_by(|one, two| {
            let key = |view: &MemberView| (view.role, view.name.clone(), view.instance.clone());
            key(one).cmp(&key(two))
        });
        views
    }

    fn member(&self, uuid: &str, member: Option<&Member>) -> MemberView {
        let record = self.lock.0.record.as_ref();
        let role = role(&self.lock.0, uuid, member);
        let is_holder = record.is_some_and(|record| record.instance == uuid);
        let holder_name = record.filter(|_| is_holder).map(|record| &record.name);
        let name = member.map(|member| &member.name).or(holder_name);
        let others = record.filter(|_| !is_holder);
        let behind = others.zip(member);
        let behind = behind.and_then(|(record, member)| behind_holder(record, member));
        MemberView {
            instance: uuid.to_owned(),
            name: name.map_or(uuid, String::as_str).to_owned(),
            uri: member.map_or("", |member| &member.uri).to_owned(),
            role,
            health: member.map_or("unknown", health).to_owned(),
            reason: member.map_or("", |member| &member.reason).to_owned(),
            dead: member.is_some_and(|member| member.dead),
            term: member.map_or(Term::NONE, |member| member.term),
            behind_rows: behind.map(|behind| behind.rows),
            behind_ms: behind.map(|behind| behind.ms),
            arrival: behind.map(|behind| behind.arrival),
            following: others.and_then(|record| match member {
                Some(member) if member.anonymous => follows(member, record),
                _ => self.following(record, uuid),
            }),
            excluded: self.excluded(uuid),
            priority: member.map(|member| member.priority),
            written: member.map(|member| member.written),
            written_ms: member.map(|member| moment_ms(member.written_ms, member.written)),
            left: false,
            paused: member.is_some_and(|member| member.paused),
            stands_down: member.is_some_and(|member| member.stands_down),
            agent: None,
            service: member.and_then(|member| member.service.clone()),
            fingerprint: member.and_then(|member| member.fingerprint.clone()),
            vshard: member.and_then(|member| member.vshard.clone()),
            tarantool_version: member.map_or("", |m| &m.tarantool_version).to_owned(),
            tarsec_version: member.map_or("", |m| &m.tarsec_version).to_owned(),
        }
    }

    /// The holder's word is renewed with every refresh; a member's own would stand there when it is long gone.
    fn following(&self, record: &Record, uuid: &str) -> Option<bool> {
        self.lock.0.session.as_ref()?;
        Some(record.following.iter().any(|known| known == uuid))
    }

    /// Ballots of other elections do not count; any change of the lock key ends one.
    fn excluded(&self, uuid: &str) -> Option<String> {
        let ballot = self.ballots.get(uuid)?;
        let is_on = ballot.index == self.lock.0.index;
        ballot.excluded.clone().filter(|_| is_on)
    }
}

/// What the lock makes of that instance, whose agent may have written a key.
fn role(sight: &LockSight, uuid: &str, member: Option<&Member>) -> MemberRole {
    let holder = sight.record.as_ref();
    let Some(record) = holder.filter(|record| record.instance == uuid) else {
        return match member {
            Some(member) if member.anonymous => MemberRole::Anonymous,
            _ => MemberRole::Replica,
        };
    };
    match (record.status, &sight.session) {
        (Status::Active, Some(_)) => MemberRole::Master,
        (Status::Promoting, Some(_)) => MemberRole::Promoting,
        (Status::Fenced, Some(_)) | (_, None) => MemberRole::Former,
    }
}

/// As an anonymous replica says itself; the holder knows nothing of it.
fn follows(member: &Member, record: &Record) -> Option<bool> {
    let status = member.upstreams.get(&record.instance)?;
    Some(status == "follow")
}
