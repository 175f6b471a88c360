use super::super::toys::{Keys as Toys, member, name, record, vclock};
use super::*;
use std::time::Duration;

fn paused() -> Record {
    Record {
        paused: true,
        ..record()
    }
}

#[track_caller]
fn refused(keys: &Toys, words: &str) {
    let view = keys.view();
    let ended = check(&view.replicasets[0]).expect_err(words);
    assert_eq!(ended.outcome, Outcome::Refused);
    assert!(ended.why.contains(words), "{}", ended.why);
}

#[test]
fn a_paused_master_that_is_silent_may_be_declared_down() {
    let minute = Duration::from_secs(60);
    for keys in [
        Toys::healthy().lock(&paused()).looked(minute, None),
        Toys::healthy().free_lock(&paused()).looked(minute, None),
    ] {
        let view = keys.view();
        assert_eq!(check(&view.replicasets[0]), Ok(&paused()));
    }
}

/// Candidates hold back for that word, too.
#[test]
fn a_silent_master_whose_own_key_tells_of_a_pause_may_be_declared_down() {
    let mut master = member(1);
    master.stands_down = true;
    let keys = Toys::healthy().member(&master);
    let view = keys.looked(Duration::from_secs(60), None).view();
    assert_eq!(check(&view.replicasets[0]), Ok(&record()));
}

#[test]
fn nobody_is_declared_down_where_an_agent_or_time_can_tell() {
    let seen = Duration::from_millis(400);
    refused(&Toys::healthy().lock(&paused()).seen(seen), "it runs");
    refused(&Toys::healthy(), "is not paused");
    let fenced = Record {
        status: Status::Fenced,
        ..paused()
    };
    refused(&Toys::healthy().free_lock(&fenced), "said itself");
    let key = format!("{}/leader", record().replicaset);
    refused(&Toys::healthy().put(&key, b"?", None), "no record");
}

#[test]
fn a_declaration_is_a_new_record_of_the_same_term_that_bounds_no_successor() {
    let unguarded = Some(["another".to_owned()].into());
    let was = Record {
        unguarded,
        ..paused()
    };
    let over = over(&was, "me", "anna@ops1");
    assert_eq!((over.status, over.paused), (Status::Fenced, false));
    assert_eq!(over.unguarded, was.unguarded);
    assert_eq!((over.term.get(), &over.name), (7, &name(1)));
    assert_eq!(over.vclock, vclock(1_000));
    assert_ne!(over.stamp(), paused().stamp());
    assert!(over.reason.contains("anna@ops1"));
    assert_eq!(Record::parse(&over.to_bytes()), Ok(over));
}
