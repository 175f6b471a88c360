//! The record's bytes: whatever is in the key, reading it does no harm.

use proptest::prelude::*;

use super::fixtures::*;
use crate::ending::End;
use crate::record::{Cause, LastWord, Quorum, Record, RecordError, Status};
use crate::term::Term;
use crate::vclock::Vclock;

fn any_record() -> impl Strategy<Value = Record> {
    let status = prop_oneof![
        Just(Status::Promoting),
        Just(Status::Active),
        Just(Status::Fenced)
    ];
    let numbers = (
        any::<u32>().prop_map(|term| Term::from(term).next()),
        0..=Record::MAX_LEASE_MS,
        any::<u64>(),
        any::<u64>(),
    );
    let vclock = proptest::collection::btree_map("[0-9]{1,2}", any::<u64>(), 0..4);
    let members = proptest::collection::vec("[a-z0-9-]{0,36}", 0..4);
    let handover_to = proptest::option::of(any::<String>());
    let words = any::<[String; 6]>();
    (numbers, status, vclock, members, handover_to, words).prop_map(
        |((term, lease_ms, refresh, since), status, vclock, members, handover_to, words)| {
            let [instance, replicaset, name, uri, agent, reason] = words;
            let (base, following) = (vclock.clone(), members.clone());
            Record {
                v: Record::VERSION,
                term,
                instance,
                replicaset,
                name,
                uri,
                agent,
                status,
                lease_ms,
                refresh,
                vclock: vclock.clone(),
                members: members.clone(),
                since,
                since_ms: since,
                reason,
                cause: Cause::Released,
                base,
                following,
                split_off: members.clone(),
                failsafe: since % 2 == 0,
                paused: since % 3 == 0,
                refused: since % 5 == 0,
                last_master: (since % 7 == 0).then(|| LastWord {
                    instance: String::new(),
                    vclock: vclock.clone(),
                }),
                unguarded: (since % 17 == 0).then(|| members.iter().cloned().collect()),
                quorum: (since % 19 == 0).then(|| Quorum {
                    size: refresh,
                    members: members.iter().cloned().collect(),
                }),
                offered: since % 23 == 0,
                tried: members.iter().cloned().collect(),
                rate_rows_per_s: (since % 11 == 0).then_some(since),
                end: (since % 13 == 0).then(End::default),
                handover_to,
                problems: members.clone(),
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_can_be_read(record in any_record()) {
        prop_assert_eq!(Record::parse(&record.to_bytes()), Ok(record));
    }

    #[test]
    fn bytes_are_a_sound_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Record::parse(&bytes);
    }

    #[test]
    fn a_damaged_record_is_a_sound_record_or_an_error(
        record in any_record(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = record.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Record::parse(&bytes) {
            prop_assert!(read.v == Record::VERSION && read.term > Term::NONE);
            prop_assert!(read.lease() <= 60.secs());
        }
    }

    #[test]
    fn a_record_cut_short_is_an_error(record in any_record(), at in any::<prop::sample::Index>()) {
        let bytes = record.to_bytes();
        prop_assert!(Record::parse(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn fields_of_later_versions_are_ignored(record in any_record(), extra in any::<String>()) {
        let mut value = serde_json::to_value(&record).unwrap();
        value["zz_unknown"] = serde_json::json!({ "nested": [extra] });
        prop_assert_eq!(Record::parse(value.to_string().as_bytes()), Ok(record));
    }

    #[test]
    fn another_version_is_an_error_whatever_else_is_there(record in any_record(), v in any::<u64>()) {
        prop_assume!(v != Record::VERSION);
        let mut value = serde_json::to_value(&record).unwrap();
        value["v"] = v.into();
        value["term"] = "not even a number".into();
        let expected = Err(RecordError::UnknownVersion { found: v });
        prop_assert_eq!(Record::parse(value.to_string().as_bytes()), expected);
    }
}

#[test]
fn numbers_out_of_bounds_are_garbage() {
    let bad = [record().term(0), record().lease_of(60_001.ms())];
    for record in bad {
        assert!(matches!(
            Record::parse(&record.to_bytes()),
            Err(RecordError::Garbage { .. })
        ));
    }
}

#[test]
fn a_value_longer_than_any_record_is_not_even_read() {
    let bytes = vec![b'['; Record::MAX_BYTES + 1];
    assert_eq!(
        Record::parse(&bytes),
        Err(RecordError::TooLong { len: bytes.len() })
    );
}

#[test]
fn fields_that_say_nothing_may_be_missing() {
    let least = r#"{"v":1,"term":3,"instance":"i","replicaset":"r","name":"n","uri":"u","status":"fenced","lease_ms":1,"refresh":2}"#;
    let read = Record::parse(least.as_bytes()).unwrap();
    assert_eq!(
        (read.vclock, read.members, read.handover_to),
        (Vclock::new(), vec![], None)
    );
}

#[test]
fn each_write_has_a_stamp_of_its_own() {
    let base = record();
    assert_eq!(base.stamp(), record().stamp());
    let others = [
        record().term(7),
        record().refreshed(41),
        record().of("another"),
        record().says(Status::Fenced),
    ];
    for other in others {
        assert_ne!(base.stamp(), other.stamp());
    }
}

/// Much of a record is handed on by the next holder, whose own must be read.
#[test]
fn a_record_with_more_than_a_replica_set_has_is_garbage() {
    let names = |n: usize| (0..n).map(|at| format!("instance-{at}"));
    let of = |n: usize| Record {
        tried: names(n).collect(),
        ..record()
    };
    assert!(Record::parse(&of(64).to_bytes()).is_ok());
    let with_name = |name: &str| Record {
        split_off: vec![name.to_owned()],
        ..record()
    };
    let vclock: Vclock = (0..65).map(|id: u64| (id.to_string(), 1)).collect();
    for bad in [
        of(65),
        with_name(&"x".repeat(65)),
        Record {
            vclock: vclock.clone(),
            ..record()
        },
        Record {
            last_master: Some(LastWord {
                instance: OTHER.to_owned(),
                vclock,
            }),
            ..record()
        },
    ] {
        let read = Record::parse(&bad.to_bytes());
        let Err(RecordError::Garbage { why }) = read else {
            panic!("{read:?}")
        };
        assert!(why.contains("more than 64"), "{why}");
    }
}

#[test]
fn problems_find_room_in_a_record_or_are_left_to_the_members_keys() {
    let problem = |n: usize| format!("{n}{}", "x".repeat(150));
    let mut node = node().attached().seeing_lock();
    node.lock.put_record(
        None,
        &Record {
            problems: (0..60).map(problem).collect(),
            ..record()
        },
    );
    node.watch_shows_lock();
    let told = node.state.problems();
    assert!((20..40).contains(&told.len()), "{}", told.len());
    let written = Record {
        problems: told,
        ..record()
    };
    assert_eq!(Record::parse(&written.to_bytes()), Ok(written));
}

#[test]
fn a_name_that_no_host_has_is_garbage() {
    let named = |name: &str| Record {
        name: name.to_owned(),
        ..record()
    };
    assert!(Record::parse(&named(&"x".repeat(300)).to_bytes()).is_ok());
    let read = Record::parse(&named(&"x".repeat(301)).to_bytes());
    assert!(matches!(read, Err(RecordError::Garbage { .. })), "{read:?}");
}
