//! How a master's time ended, for how long nothing could be written, and how well either is known.

use std::collections::BTreeMap;

use super::fixtures::*;
use super::history::line;
use crate::board::{HistoryLine, parse};
use crate::ending::{End, How, Known, Outage};
use crate::event::{Event, KillResult};
use crate::ids::SessionId;
use crate::observed::{Peer, Upstream};
use crate::plan::{Action, GuardCommand};
use crate::record::{LastWord, Record, Status};
use crate::vclock::Vclock;

/// The line that the node writes when it has come after this.
fn line_after(mut node: Node) -> HistoryLine {
    node.settles();
    node.lives_on(2.secs());
    node.lock.history.get(&7).expect("a line").clone()
}

/// A replica that sees the record come, rather than finds it.
fn witness(record: &Record) -> Node {
    let mut node = node().attached();
    let session = SessionId::new("theirs");
    let before = record.clone().refreshed(record.refresh - 1);
    node.lock.put_record(Some(session.clone()), &before);
    node.watch_shows_lock();
    node.lock.put_record(Some(session), record);
    node.watch_shows_lock();
    node
}

fn released(end: Option<End>) -> Node {
    let mut fenced = record().says(Status::Fenced);
    fenced.end = end;
    node()
        .finding(|lock| {
            lock.put_record(None, &fenced);
        })
        .attached()
        .seeing_lock()
}

fn last_release(node: &mut Node) -> Record {
    let release = node.comes_to(|action| matches!(action, Action::Release { .. }));
    let Action::Release { record, .. } = release else {
        unreachable!("just looked for");
    };
    *record
}

#[test]
fn what_the_last_master_said_grows_by_the_time_since_it_was_seen() {
    let said = End {
        how: How::Stop,
        by: Some("SIGTERM".to_owned()),
        over_ms: Some(40),
        writable_ms: Some(40),
        complete: true,
        word_age_ms: Some(0),
    };
    let mut node = released(Some(said));
    let seen_at = node.now;
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    node.passes(500.ms());
    node.answers(&promote);
    let passed = u64::try_from(node.now.since(seen_at).as_millis()).unwrap();
    let line = line_after(node);
    assert_eq!(
        (line.ended, line.by.as_deref()),
        (Some(How::Stop), Some("SIGTERM"))
    );
    let outage = line.outage.unwrap();
    assert_eq!(outage.known, Known::Exact);
    let ms = outage.at_most_ms.unwrap();
    assert!(
        ms <= 40 + passed && ms + 5 >= 40 + passed,
        "{outage} {passed}"
    );
    assert_eq!(line.risk_known, Some(Known::Exact));
    assert_eq!(line.estimate_rows(), None);
}

#[test]
fn an_outage_ends_when_the_instance_turned_writable_and_not_when_its_agent_heard_of_it() {
    let said = End {
        over_ms: Some(40),
        writable_ms: Some(40),
        ..End::default()
    };
    let mut node = released(Some(said));
    let seen_at = node.now;
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    let mut answer = node.carries_out(&promote).expect("it is promoted");
    let writable_at = node.now;
    node.passes(300.ms());
    if let Event::GuardAnswered { probe, .. } = &mut answer {
        probe.guard.writable_ago_ns = Some(298_000_000);
    }
    node.hears(answer);
    let line = line_after(node);
    let outage = line.outage.unwrap();
    let true_ms = 40 + u64::try_from(writable_at.since(seen_at).as_millis()).unwrap();
    // Asked when it was about to turn writable.
    let (least, most) = (outage.at_least_ms.unwrap(), outage.at_most_ms.unwrap());
    assert!(least <= true_ms && true_ms <= most, "{true_ms}: {outage:?}");
    assert!(most <= true_ms + 5, "{true_ms}: {outage:?}");
    assert_eq!(outage.known, Known::Exact);
}

#[test]
fn of_an_older_agents_release_nothing_is_claimed_that_it_did_not_say() {
    let line = line_after(released(None));
    assert_eq!(line.ended, Some(How::Unknown));
    assert_eq!(line.outage.unwrap().known, Known::AtLeast);
    assert_eq!(line.risk_known, Some(Known::AtLeast));
}

#[test]
fn a_silent_master_was_writable_for_between_a_lease_less_and_its_last_word() {
    let mut last = record();
    last.vclock = BTreeMap::from([("2".to_owned(), 100)]);
    last.rate_rows_per_s = Some(700);
    let mut node = witness(&last);
    node.lives_on(15.secs());
    let line = line_after(node);
    assert_eq!(line.ended, Some(How::MachineLost));
    let outage = line.outage.unwrap();
    assert_eq!(outage.known, Known::Between);
    let (least, most) = (outage.at_least_ms.unwrap(), outage.at_most_ms.unwrap());
    assert_eq!(most - least, 10_000, "{outage}");
    assert!((10_200..12_000).contains(&most), "{outage}");
    assert_eq!(line.last_word_age_ms, Some(10_000));
    assert_eq!(line.estimate_rows(), Some(7_000));
    // Of a master that wrote nothing just before, nobody knows what it wrote after.
    let idle = HistoryLine {
        rate_rows_per_s: Some(0),
        ..line
    };
    assert_eq!(idle.estimate_rows(), None);
}

#[test]
fn a_record_that_was_found_says_nothing_about_when_it_was_written() {
    let mut node = node()
        .finding(|lock| {
            lock.put_record(Some(SessionId::new("theirs")), &record());
        })
        .attached()
        .seeing_lock();
    node.lives_on(15.secs());
    let outage = line_after(node).outage.unwrap();
    assert_eq!(outage.known, Known::AtLeast);
}

#[test]
fn nothing_bounds_how_long_a_paused_master_was_writable() {
    let mut node = node().attached();
    let mut declared = record().says(Status::Fenced);
    declared.end = Some(End {
        how: How::ByHand,
        by: Some("anna".to_owned()),
        ..End::default()
    });
    node.lock.put_record(None, &declared);
    node.watch_shows_lock();
    let line = line_after(node);
    assert_eq!(
        (line.ended, line.by.as_deref()),
        (Some(How::ByHand), Some("anna"))
    );
    assert_eq!(line.outage.unwrap().known, Known::Unknown);
}

#[test]
fn an_instance_that_still_speaks_is_no_lost_machine() {
    for (idle_s, how) in [(0.4, How::AgentLost), (9.0, How::MachineLost)] {
        let mut node = witness(&record()).having(|instance| {
            instance.replication = vec![Peer {
                id: 2,
                uuid: OTHER.to_owned(),
                upstream: Some(Upstream {
                    status: "follow".to_owned(),
                    peer: None,
                    lag_s: None,
                    idle_s: Some(idle_s),
                    message: None,
                    locked_out: false,
                }),
                downstream_status: None,
                downstream_vclock: None,
            }];
        });
        node.lives_on(15.secs());
        assert_eq!(line_after(node).ended, Some(how));
    }
}

/// The line of term 8 once the ex-master's agent, whose last word was that, has completed what its successor guessed.
fn completed(node: &mut Node, refresh: u64) -> HistoryLine {
    let mut guessed = line(8, OWN, OTHER, Vclock::default());
    guessed.ended = Some(How::MachineLost);
    guessed.outage = Some(Outage::of(Some(300), Some(10_300)));
    guessed.last_refresh = Some(refresh);
    node.lock.history.insert(8, guessed);
    let theirs = record().term(8);
    node.lock
        .put_record(Some(SessionId::new("theirs")), &theirs);
    node.watch_shows_lock();
    node.lives_on(15.secs());
    node.lock.history.get(&8).expect("a line").clone()
}

#[test]
fn a_new_agent_does_not_know_whether_the_guard_had_the_last_words_lease() {
    let mut node = node().having(|instance| {
        instance.guard.last_fence = Some("its lease ended".to_owned());
        instance.guard.fenced_ago_ns = Some(0);
    });
    node = node.attached().seeing_lock();
    let line = completed(&mut node, 4);
    assert_eq!(line.ended, Some(How::AgentLost));
    let outage = line.outage.unwrap();
    assert_eq!(outage, Outage::of(Some(300), Some(10_300)));
}

#[test]
fn an_agent_that_lived_on_knows_its_last_word_to_the_way_to_consul() {
    let mut node = master();
    let refresh = node.comes_to_in(100.ms(), |action| matches!(action, Action::Refresh { .. }));
    let answer = node.carries_out(&refresh).expect("an answer");
    node.passes(200.ms());
    node.hears(answer);
    let last = node.lock.record().unwrap().refresh;
    let line = completed(&mut node, last);
    assert_eq!(line.ended, Some(How::CutOff));
    let outage = line.outage.unwrap();
    let (least, most) = (outage.at_least_ms.unwrap(), outage.at_most_ms.unwrap());
    assert_eq!(outage.known, Known::Exact);
    assert!(least + 200 <= most && most < 10_300, "{outage:?}");
}

#[test]
fn an_agent_that_lived_on_was_cut_off_though_the_answer_to_its_last_word_was_lost() {
    let mut node = master();
    let refresh = node.comes_to_in(100.ms(), |action| matches!(action, Action::Refresh { .. }));
    node.carries_out(&refresh);
    node.loses(&refresh);
    let last = node.lock.record().unwrap().refresh;
    let line = completed(&mut node, last);
    assert_eq!(line.ended, Some(How::CutOff));
    let outage = line.outage.unwrap();
    assert_eq!(outage.known, Known::Between);
    assert_eq!(outage.at_most_ms, Some(10_300));
}

#[test]
fn a_deleted_record_was_somebodys_hand_and_the_first_term_nobodys() {
    let mut node = witness(&record());
    node.lock.delete_key();
    node.watch_shows_lock();
    node.lives_on(25.secs());
    assert_eq!(line_after(node).ended, Some(How::ByHand));
    let mut node = node_without_key();
    node.lives_on(15.secs());
    let line = node.lock.history.get(&1).expect("a line");
    assert_eq!((line.ended, line.outage), (Some(How::First), None));
}

fn node_without_key() -> Node {
    node()
        .finding(|lock| lock.delete_key())
        .attached()
        .seeing_lock()
}

#[test]
fn a_crash_is_told_from_a_kill_and_a_stop() {
    let mut node = master();
    node.lives_on(3.secs());
    node.is_killed();
    let end = last_release(&mut node).end.expect("it says how it ended");
    assert_eq!(end.how, How::Crash);
    // It was looked at until it died, and its vclock was not.
    assert!(end.writable_ms.unwrap() < 300 && !end.complete, "{end:?}");
    assert!(end.over_ms <= end.writable_ms);

    let mut node = master();
    node.lives_on(3.secs());
    node.is_asked_to_stop();
    let end = last_release(&mut node).end.expect("it says how it ended");
    assert_eq!((end.how, end.by.as_deref()), (How::Stop, Some("SIGTERM")));
    assert!(end.complete && end.over_ms == end.writable_ms, "{end:?}");

    let mut node = master();
    node.lives_on(3.secs());
    node.freezes();
    let frozen_at = node.now;
    let _ = node.comes_to_in(250.ms(), |action| matches!(action, Action::Kill));
    node.hears(Event::KillEnded {
        result: KillResult::Killed,
    });
    node.is_killed();
    let silent = u64::try_from(node.now.since(frozen_at).as_millis()).unwrap();
    let end = last_release(&mut node).end.expect("it says how it ended");
    assert_eq!(end.how, How::HangKilled);
    assert!(end.writable_ms.unwrap() >= silent, "{end:?} {silent}");
    assert!(end.over_ms.unwrap() < 500, "{end:?}");
}

#[test]
fn who_was_never_promoted_hands_on_how_the_last_master_ended() {
    let mut refused = record().says(Status::Fenced);
    refused.refused = true;
    refused.vclock = Vclock::from([("2".to_owned(), 50)]);
    refused.last_master = Some(LastWord {
        instance: "third".to_owned(),
        vclock: Vclock::from([("1".to_owned(), 30)]),
    });
    refused.end = Some(End {
        how: How::Crash,
        over_ms: Some(4_000),
        writable_ms: Some(4_100),
        ..End::default()
    });
    let mut node = node()
        .finding(|lock| {
            lock.put_record(None, &refused);
        })
        .having(|instance| instance.vclock = Vclock::from([("1".to_owned(), 18)]))
        .attached()
        .seeing_lock();
    node.lives_on(25.secs());
    let line = line_after(node);
    assert_eq!(line.ended, Some(How::Crash));
    assert!(line.outage.unwrap().at_least_ms.unwrap() >= 4_000);
    assert_eq!(line.from.as_ref().unwrap().instance, "third");
    assert_eq!(line.rows_at_risk, 12);
}

#[test]
fn an_outage_is_said_as_well_as_it_is_known() {
    let said = |least, most| Outage::of(least, most).to_string();
    assert_eq!(said(Some(40), Some(40)), "40 ms");
    assert_eq!(said(Some(40), Some(9_876)), "40 ms to 9.87 s");
    assert_eq!(said(Some(8_900), None), "at least 8.90 s");
    assert_eq!(said(None, Some(1)), "at most 1 ms");
    assert_eq!(said(None, None), "a time that nobody knows");
}

#[test]
fn words_of_a_newer_agent_do_not_make_a_line_unreadable() {
    let line = line_after(released(None));
    let mut value = serde_json::to_value(&line).unwrap();
    value["ended"] = "struck_by_lightning".into();
    value["outage"]["known"] = "roughly".into();
    value["risk_known"] = "roughly".into();
    let read: HistoryLine = parse(value.to_string().as_bytes()).unwrap();
    assert_eq!(read.ended, Some(How::Unknown));
    assert_eq!(read.risk_known, Some(Known::Unknown));
}
