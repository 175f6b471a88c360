//! Which terms are believed, and of whom.

use proptest::prelude::*;

use super::fixtures::*;
use crate::board::{Member, parse};
use crate::record::Status;
use crate::term::{SaidBy, Term};

/// An agent that finds no lock key, and members' keys that mention this term, has taken the lock.
fn after_hearing_of(term: Term) -> Node {
    let mut node = node().finding(|lock| {
        lock.delete_key();
        lock.members_term = term;
    });
    node.attaches();
    node.watch_shows_lock();
    node.takes_lock();
    node.settles();
    node
}

/// Anybody who may write a key can write such a term, and no lock protects a member's key.
#[test]
fn a_term_that_nobody_can_have_counted_to_is_not_believed() {
    for term in [Term::MAX_FIRST.next(), Term::MAX] {
        let node = after_hearing_of(term);
        assert_eq!(
            node.lock.record().expect("a record").term.get(),
            1,
            "{term}"
        );
    }
    let member = |term: u64| {
        format!(
            r#"{{"v":1,"instance":"i","replicaset":"r","name":"n","uri":"u","role":"replica","term":{term},"lease_ms":1}}"#
        )
    };
    let reads = |term: u64| parse::<Member>(member(term).as_bytes()).is_some();
    assert!(reads(Term::MAX.get()));
    assert!(!reads(Term::MAX.get() + 1));
    assert!(!reads(u64::MAX));
}

/// The highest that is believed leaves room: hands change on.
#[test]
fn after_the_highest_term_that_is_believed_terms_go_on() {
    let node = after_hearing_of(Term::MAX_FIRST);
    let record = node.lock.record().expect("a record that can be read");
    assert_eq!(record.term, Term::MAX_FIRST.next());
}

/// Whoever may write the lock key may say there what they like; the master says its own again, and nobody remembers it.
#[test]
fn a_term_or_a_refresh_that_a_hand_wrote_into_the_lock_is_no_end() {
    for (term, refresh) in [
        (Term::MAX.get(), 1),
        (7, u64::MAX),
        (6, u64::MAX),
        (8 + Term::MAX_AHEAD, 40),
    ] {
        let mut node = replica();
        node.lock.put_record(None, &record().says(Status::Fenced));
        node.watch_shows_lock();
        node.settles();
        node.lives_on(3.secs());
        let mut node = node.serving();
        let own = node.lock.record().expect("its own");
        let mut false_one = own.clone();
        false_one.refresh = refresh;
        false_one.term = Term::try_from(term).expect("one that can be written");
        let holder = node.lock.holder().cloned();
        node.lock.put_record(holder, &false_one);
        node.watch_shows_lock();
        node.lives_on(8.secs());
        assert!(
            node.state.highest_term.get() < 100,
            "{term}: {}",
            node.state.highest_term
        );
        let last = node.lock.record().expect("a record that can be read");
        assert!(last.term.get() < 100 && last.refresh < 1000, "{last:?}");
    }
}

fn term(number: u64) -> Term {
    Term::try_from(number).expect("one that can be written")
}

#[test]
fn what_no_json_reader_holds_exactly_is_no_term() {
    let read = |text: &str| serde_json::from_str::<Term>(text);
    assert_eq!(read("9007199254740991").ok(), Some(Term::MAX));
    for text in [
        "9007199254740992",
        "18446744073709551615",
        "-1",
        "7.5",
        "\"7\"",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    let why = read("9007199254740992").unwrap_err().to_string();
    assert!(
        why.contains("term is 9007199254740992, at most 9007199254740991"),
        "{why}"
    );
}

#[test]
fn an_agent_that_knows_none_believes_a_members_key_up_to_the_half() {
    let believed = |term: Term, said_by| term.is_believable_after(Term::NONE, said_by);
    assert!(believed(Term::MAX_FIRST, SaidBy::Member));
    assert!(!believed(Term::MAX_FIRST.next(), SaidBy::Member));
    for said_by in [SaidBy::Lock, SaidBy::Guard] {
        assert!(believed(Term::MAX_BELIEVED, said_by));
        assert!(!believed(Term::MAX_BELIEVED.next(), said_by));
    }
}

/// Whoever starts after that has only the record and its instance to go by.
#[test]
fn an_agent_that_starts_after_a_members_key_said_the_highest_goes_on_from_there() {
    let first = Term::MAX_FIRST.next();
    let mut by_record = node().finding(|_| {});
    let mut last = record();
    last.term = first;
    by_record.lock.put_record(None, &last.says(Status::Fenced));
    let mut by_guard = node().finding(|lock| lock.delete_key());
    by_guard.instance.guard.term = first;
    for node in [&mut by_record, &mut by_guard] {
        node.attaches();
        node.watch_shows_lock();
        node.lives_on(10.secs());
        let record = node.lock.record().expect("a record that can be read");
        assert_eq!(record.term, first.next());
        assert_eq!(node.state.highest_term, first.next());
    }
}

fn any_source() -> impl Strategy<Value = SaidBy> {
    prop::sample::select(vec![SaidBy::Lock, SaidBy::Guard, SaidBy::Member])
}

proptest! {
    /// Whatever hands write, the next term can be written and is believed by whoever knows the one before.
    #[test]
    fn whatever_was_believed_terms_go_on(
        claims in prop::collection::vec((0..=Term::MAX.get(), any_source()), 0..64),
    ) {
        let mut highest = Term::NONE;
        for (claim, said_by) in claims {
            let claim = term(claim);
            if claim.is_believable_after(highest, said_by) {
                highest = highest.max(claim);
            }
        }
        prop_assert!(highest <= Term::MAX_BELIEVED);
        let next = highest.next();
        prop_assert!(next > highest && next.is_believable_after(highest, SaidBy::Lock));
    }

    /// Members' keys alone never lead to where whoever starts later believes no record.
    #[test]
    fn after_whatever_members_keys_say_a_fresh_agent_believes_the_next_terms(
        claim in 0..=Term::MAX.get(), counted in 0..Term::MAX_AHEAD,
    ) {
        prop_assume!(term(claim).is_believable_after(Term::NONE, SaidBy::Member));
        prop_assert!(term(claim + counted).is_believable_after(Term::NONE, SaidBy::Lock));
    }

    #[test]
    fn terms_that_were_counted_are_believed_to_the_end(
        number in 0..Term::MAX.get(), said_by in any_source(),
    ) {
        prop_assert!(term(number).next().is_believable_after(term(number), said_by));
    }
}

/// Whatever answers at the instance's address, no record names a term in which there was no holder.
#[test]
fn a_lease_in_no_term_makes_no_record_without_a_term() {
    let mut node = node().finding(|lock| lock.delete_key());
    node.instance.ro = false;
    node.instance.read_only = false;
    node.instance.guard.leased = true;
    node.attaches();
    node.watch_shows_lock();
    node.lives_on(2.secs());
    let written = node.lock.record().map(|record| record.term);
    assert!(written.is_none_or(|term| term > Term::NONE), "{written:?}");
}

/// A guard counts by the same bound, so what says that is none, or one that was tampered with.
#[test]
fn a_lease_in_a_term_that_nobody_can_have_counted_to_is_ended_and_gets_no_record() {
    for absurd in [Term::MAX, term(8 + Term::MAX_AHEAD)] {
        let mut node = replica();
        node.instance.ro = false;
        node.instance.read_only = false;
        node.instance.guard.leased = true;
        node.instance.guard.term = absurd;
        node.lock.put_record(None, &record().says(Status::Fenced));
        node.watch_shows_lock();
        node.lives_on(10.secs());
        assert!(
            node.state.highest_term < term(100),
            "{}",
            node.state.highest_term
        );
        let written = node.lock.record().expect("a record").term;
        assert!(written < term(100), "{written}");
        assert!(node.instance.ro || node.instance.guard.term < absurd);
    }
}
