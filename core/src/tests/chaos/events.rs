//! Any event at all.

use crate::event::KillResult;
use crate::term::Term;
use proptest::prelude::*;

use super::super::fixtures::{OTHER, OWN, Span, fault, record};
use super::super::toys::{ToyInstance, board_with_term};
use super::any_status;
use crate::event::{Event, LockStepKind};
use crate::ids::SessionId;
use crate::record::{Record, RecordError};
use crate::sight::{KeySight, LockSight};
use crate::timing::{Reading, Tick};

fn any_record() -> impl Strategy<Value = Result<Record, RecordError>> {
    prop_oneof![
        4 => (0..4_u32, 0..4_u64, any_status(), any::<bool>(), 0..60_000_u64).prop_map(
            |(term, refresh, status, own, lease_ms)| {
                let record = record().term(term + 5).refreshed(refresh + 40).says(status);
                Ok(record.of(if own { OWN } else { OTHER }).lease_of(lease_ms.ms()))
            }
        ),
        1 => Just(Err(RecordError::Garbage { why: "rubbish".to_owned() })),
        1 => Just(Err(RecordError::UnknownVersion { found: 2 })),
    ]
}

fn any_session() -> impl Strategy<Value = SessionId> {
    prop_oneof![Just("own"), Just("theirs"), Just("session-1")].prop_map(SessionId::new)
}

fn any_sight() -> impl Strategy<Value = LockSight> {
    let key = (0..9_u64, proptest::option::of(any_session()), any_record()).prop_map(
        |(modify_index, session, record)| KeySight {
            modify_index,
            session,
            record,
        },
    );
    (0..9_u64, proptest::option::of(key)).prop_map(|(index, key)| LockSight { index, key })
}

/// A guard in any state, sensible or not.
fn any_guard() -> impl Strategy<Value = ToyInstance> {
    let flags = any::<[bool; 4]>();
    (
        flags,
        0..9_u32,
        0..30_000_u64,
        100..103_u32,
        proptest::option::of(any_session()),
    )
        .prop_map(
            |([ro, read_only, leased, landed], term, deadline_ms, pid, session)| {
                let mut instance = ToyInstance::new(OWN);
                instance.ro = ro;
                instance.read_only = read_only;
                instance.pid = pid;
                instance.guard.leased = leased;
                instance.guard.landed = landed;
                instance.guard.term = Term::from(term);
                instance.promise = (term % 2 == 1).then(|| {
                    (
                        OTHER.to_owned(),
                        Term::from(term),
                        instance.clock(Tick::at(1_000.secs())) + deadline_ms.ms(),
                    )
                });
                instance.born = instance.clock(Tick::at(999.secs()));
                instance.guard.session = session.map(|session| session.to_string());
                instance.guard.deadline = instance.clock(Tick::at(1_000.secs())) + deadline_ms.ms();
                instance
            },
        )
}

/// Any event at all, with no regard to what was asked for.
pub(super) fn any_event(now: Tick) -> impl Strategy<Value = Event> {
    use crate::event::GuardCommandKind as C;
    let command = prop_oneof![
        Just(C::Probe),
        Just(C::Remember),
        Just(C::Promote),
        Just(C::Grant),
        Just(C::Fence),
        Just(C::Follow),
        Just(C::Observe)
    ];
    let step = prop_oneof![
        Just(LockStepKind::Acquire),
        Just(LockStepKind::Refresh),
        Just(LockStepKind::Release)
    ];
    let outcome = prop_oneof![
        (0..9_u64).prop_map(|index| Ok(Ok(index))),
        Just(Ok(Err("refused".to_owned()))),
        Just(Err(fault()))
    ];
    let read = prop_oneof![4 => any_sight().prop_map(Ok), 1 => Just(Err(fault()))];
    let catalog = prop_oneof![any::<bool>().prop_map(Ok), Just(Err(fault()))];
    let renewed = prop_oneof![any::<bool>().prop_map(Ok), Just(Err(fault()))];
    let why = || "because".to_owned();
    prop_oneof![
        4 => (any_guard(), any::<bool>()).prop_map(move |(guard, killable)| Event::Attached {
            probe: Box::new(guard.probe(now)),
            process: if killable { Ok(()) } else { Err(why()) },
        }),
        6 => (command.clone(), any_guard(), any::<bool>()).prop_map(move |(command, guard, done)| {
            let probe = Box::new(guard.probe(now));
            Event::GuardAnswered { command, probe, refused: (!done).then(why) }
        }),
        2 => command.prop_map(move |command| Event::GuardFailed { command, why: why() }),
        1 => Just(Event::Unreachable { why: why() }),
        1 => Just(Event::FellSilent),
        1 => Just(Event::SpokeAgain),
        1 => Just(Event::Died { proof: why() }),
        1 => any::<bool>().prop_map(move |ok| Event::KillEnded { result: if ok { KillResult::Killed } else { KillResult::Failed(why()) } }),
        2 => any_session().prop_map(|session| Event::SessionCreated { result: Ok(session) }),
        2 => (any_session(), renewed).prop_map(|(session, result)| Event::SessionRenewed { session, result }),
        1 => Just(Event::SessionDestroyed),
        6 => (0..2_000_u64, any::<bool>(), read).prop_map(|(asked_ms, by_watch, result)| Event::LockRead {
            asked_at: Tick::at(999.secs() + asked_ms.ms()),
            by_watch,
            result,
        }),
        6 => (step, outcome).prop_map(|(step, result)| Event::LockStepEnded { step, result }),
        1 => catalog.prop_map(|result| Event::CatalogEnded { result }),
        1 => any::<bool>().prop_map(|ok| Event::MemberEnded { result: if ok { Ok(()) } else { Err(fault()) } }),
        1 => any::<u32>().prop_map(|term| Event::BoardRead { result: Ok(Box::new(board_with_term(Term::from(term % 99)))) }),
        1 => (0..2_000_u64, any::<bool>()).prop_map(move |(before_ms, ok)| Event::PromisesAnswered {
            unguarded: Default::default(),
            reading: Reading {
                t0: ToyInstance::new(OWN).clock(now),
                reply_at: Tick::at(999.secs() + before_ms.ms()),
            },
            answers: [(OTHER.to_owned(), if ok { Ok(()) } else { Err(why()) })].into(),
        }),
        1 => Just(Event::Woke),
    ]
}
