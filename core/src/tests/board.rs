//! The values of the keys beside the lock: whatever is in them, reading them does no harm.

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::board::{
    Ballot, HistoryLine, Member, Party, Pause, Returned, Stages, Switchover, SwitchoverState,
    VERSION, parse,
};
use crate::record::{Cause, Record};
use crate::term::Term;
use crate::vclock::Vclock;

fn vclock() -> Vclock {
    [("1".to_owned(), 7), ("2".to_owned(), u64::MAX)].into()
}

fn ballot() -> Ballot {
    Ballot {
        v: VERSION,
        instance: "i".to_owned(),
        name: "host:3301".to_owned(),
        term: Term::from(3),
        index: 17,
        vclock: vclock(),
        following: true,
        priority: -1,
        idle_ms: 5,
        same_configuration: false,
        unfollowed: false,
        excluded: Some("it lags".to_owned()),
        vote: Some(true),
    }
}

fn order() -> Switchover {
    Switchover {
        id: "1".to_owned(),
        target: Some("i".to_owned()),
        by: "somebody".to_owned(),
        at: 1,
        catch_up_ms: 500,
        state: SwitchoverState::Running,
        why: "maintenance".to_owned(),
        ..Switchover::nothing()
    }
}

fn line() -> HistoryLine {
    let party = |name: &str| Party {
        instance: name.to_owned(),
        name: name.to_owned(),
    };
    HistoryLine {
        v: VERSION,
        term: Term::from(3),
        at: 1,
        at_ms: 1_500,
        cause: Cause::TakenOver,
        reason: "because".to_owned(),
        ended: None,
        by: None,
        outage: None,
        from: Some(party("i")),
        to: party("j"),
        rows_at_risk: 2,
        risk_known: None,
        last_word_age_ms: None,
        rate_rows_per_s: None,
        last_refresh: None,
        interruptions: Vec::new(),
        vclock: vclock(),
        returned: Some(Returned {
            at: 2,
            at_ms: 2_500,
            rows: 1,
            known: None,
        }),
        stages_ms: Stages::default(),
    }
}

/// Bytes with some of them changed, and perhaps cut short.
fn damaged(
    mut bytes: Vec<u8>,
    edits: &[(prop::sample::Index, u8)],
    cut: Option<prop::sample::Index>,
) -> Vec<u8> {
    for (at, byte) in edits {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
    bytes
}

/// What is read of any bytes can be written, and reads as the same again.
fn reads<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Some(read) = parse::<T>(bytes) {
        let written = serde_json::to_vec(&read).unwrap();
        // Escapes may make it longer than what is read at all.
        if written.len() <= Record::MAX_BYTES {
            let again = parse::<T>(&written).map(|again| serde_json::to_vec(&again).unwrap());
            prop_assert_eq!(again, Some(written));
        }
    }
    Ok(())
}

fn read_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    reads::<Member>(bytes)?;
    reads::<Ballot>(bytes)?;
    reads::<Switchover>(bytes)?;
    reads::<HistoryLine>(bytes)?;
    let _: Result<Pause, _> = serde_json::from_slice(bytes);
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_a_value_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all(&bytes)?;
    }

    #[test]
    fn a_damaged_value_is_a_value_or_none(
        which in 0..3_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let whole = match which {
            0 => serde_json::to_vec(&ballot()),
            1 => serde_json::to_vec(&order()),
            _ => serde_json::to_vec(&line()),
        };
        read_all(&damaged(whole.unwrap(), &edits, cut))?;
    }
}

#[test]
fn what_is_written_can_be_read() {
    let (ballot, order, line) = (ballot(), order(), line());
    assert_eq!(parse(&serde_json::to_vec(&ballot).unwrap()), Some(ballot));
    assert_eq!(parse(&serde_json::to_vec(&order).unwrap()), Some(order));
    assert_eq!(parse(&serde_json::to_vec(&line).unwrap()), Some(line));
}
