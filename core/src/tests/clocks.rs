//! The wall clock, which may be set at any moment: it is for what is written down, and each moment is what it showed then.

use super::fixtures::*;
use crate::board::Member;
use crate::event::Event;
use crate::plan::{Action, GuardCommand};
use crate::record::{Cause, Record, Status};
use crate::timing::moment_ms;

const DAY_MS: u64 = 86_400_000;

/// The member's key as the node would write it for the first time.
fn member_key(node: &mut Node) -> Member {
    node.lives_on(1.secs());
    node.state.catalog.member = None;
    let write = node.comes_to(|action| matches!(action, Action::WriteMember { .. }));
    node.answers(&write);
    let Action::WriteMember { member } = write else {
        unreachable!("just looked for");
    };
    *member
}

#[test]
fn a_change_of_hands_is_written_down_at_the_time_of_day_at_which_it_came() {
    let mut node = node().attached().seeing_lock();
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    let answer = node.carries_out(&promote).expect("an answer");
    let began_ms = node.wall_ms();
    node.hears(answer);
    let promoted_ms = node.wall_ms();
    // The clock is set before Consul has the line, and the line is lost once.
    node.wall_from_ms -= DAY_MS;
    let write = node.comes_to(|action| matches!(action, Action::WriteHistory { .. }));
    node.loses(&write);
    node.lives_on(2.secs());
    let line = node.lock.history.get(&7).expect("a line");
    assert_eq!((line.at_ms, line.at), (promoted_ms, promoted_ms / 1000));
    let record = node.lock.record().unwrap();
    let since_ms = record.since_ms;
    assert!(
        since_ms <= began_ms && began_ms < since_ms + 1_000,
        "{since_ms}"
    );
    assert_eq!(record.since, since_ms / 1000);
    // It is the same term still, whatever the clock says.
    node.lives_on(10.secs());
    assert_eq!(node.lock.record().unwrap().since_ms, since_ms);
}

#[test]
fn a_key_says_when_it_was_written_by_the_clock_of_that_moment() {
    let mut node = master();
    let before = member_key(&mut node);
    assert!(node.wall_ms() - before.written_ms <= 1, "a moment ago");
    node.wall_from_ms += DAY_MS;
    node.passes(1.ms());
    let after = member_key(&mut node);
    assert!(node.wall_ms() - after.written_ms <= 1, "a moment ago");
    assert!(after.written_ms - before.written_ms >= DAY_MS);
    assert_eq!(after.written, after.written_ms / 1000);
}

/// A replica that waits out a cooldown of five minutes after the failover of the term that it follows, which by its
/// record is that old when it is first seen.
fn cooling_down(age_ms: u64) -> Node {
    let mut node = node().attached();
    node.state.settings.failover_cooldown = 300.secs();
    let mut theirs = record().term(7);
    theirs.cause = Cause::TakenOver;
    theirs.since_ms = node.wall_ms() - age_ms;
    theirs.since = theirs.since_ms / 1000;
    node.lock.put_record(None, &theirs);
    node.watch_shows_lock();
    node
}

#[test]
fn a_clock_that_is_set_neither_ends_a_cooldown_nor_lengthens_it() {
    for set_by_ms in [0, DAY_MS] {
        for backwards in [false, true] {
            let mut node = cooling_down(200_000);
            if backwards {
                node.wall_from_ms -= set_by_ms;
            } else {
                node.wall_from_ms += set_by_ms;
            }
            node.lives_on(90.secs());
            assert!(!node.state.holds_lock(), "{set_by_ms} {backwards}");
            node.lives_on(20.secs());
            assert!(node.state.holds_lock(), "{set_by_ms} {backwards}");
        }
    }
}

#[test]
fn a_reader_prefers_milliseconds_and_takes_the_seconds_of_an_older_writer() {
    let mut old = record().says(Status::Active);
    old.since = 1_700_000_000;
    let mut value: serde_json::Value = serde_json::from_slice(&old.to_bytes()).unwrap();
    value.as_object_mut().unwrap().remove("since_ms");
    let read = Record::parse(value.to_string().as_bytes()).unwrap();
    assert_eq!(read.began_ms(), 1_700_000_000_000);
    old.since_ms = 1_700_000_000_987;
    assert_eq!(
        Record::parse(&old.to_bytes()).unwrap().began_ms(),
        1_700_000_000_987
    );
    assert_eq!(moment_ms(0, 5), 5_000);
}

#[test]
fn what_an_ex_master_brings_back_is_counted_at_the_time_of_day() {
    let mut node = master();
    node.wall_from_ms += DAY_MS;
    node.hears(Event::Woke);
    let counted = super::history::counts_its_rows(&mut node);
    assert_eq!(counted.at, counted.at_ms / 1000);
    assert!(counted.at_ms > node.wall_ms() - 5_000 && counted.at_ms <= node.wall_ms());
}
