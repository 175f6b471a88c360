//! What people are shown, as files. After a change on purpose, `WRITE_GOLDEN=1` writes them anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, from_value, json};

use super::*;
use crate::decide::board::{Board, Member, Pause, Switchover, SwitchoverState};
use crate::decide::fixtures;
use crate::decide::ids::SessionId;
use crate::decide::observed::Probe;
use crate::decide::plan::{CatalogEntry, Health, Registered, Role};
use crate::decide::record::Record;
use crate::decide::router::{Identity, RouterSettings};
use crate::decide::sight::{ConsulFault, KeySight, LockSight};
use crate::decide::state::{Granted, Link, Unchanged};
use crate::decide::term::Term;
use crate::decide::timing::InstanceTime;

const OWN: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const OTHER: &str = "bbbbbbbb-0000-4000-8000-000000000002";
const THIRD: &str = "cccccccc-0000-4000-8000-000000000003";
const SESSION: &str = "5e551044-aaaa-bbbb-cccc-000000000001";
/// 2026-11-21 14:03:12.345 UTC.
const WALL_MS: u64 = 1_795_269_792_345;

fn at(seconds: f64) -> Tick {
    Tick::at(Duration::from_secs_f64(seconds))
}

fn now() -> Tick {
    at(100.0)
}

#[track_caller]
fn assert_golden(name: &str, text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line:?} in\n{text}");
        assert_eq!(line, line.trim_end(), "blanks at the end in\n{text}");
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/dump/golden")
        .join(name);
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{name} is not what it was; was:\n{expected}\nis:\n{text}"
    );
}

#[track_caller]
fn assert_screen(name: &str, state: &State, reason: Option<&Reason>, head: Head<'_>) {
    let view = View {
        head,
        state,
        reason,
    };
    assert_golden(name, &screen::text(&view));
}

fn head() -> Head<'static> {
    Head {
        agent: "0123456789abcdef",
        version: "0.1.0",
        wall_ms: WALL_MS,
        now: now(),
        last_fault: None,
        lost: Lost {
            log_lines: 0,
            dumps: 0,
        },
    }
}

/// What an instance says: of itself, and of the second and the third one.
fn probe(ro: bool, peers: [Value; 2], guard: &Value) -> Probe {
    let [second, third] = peers;
    let mut guard = guard.clone();
    guard["clock"] = json!("boottime");
    let known = json!({"term": 7, "deadline": 0, "leased": !ro, "landed": ro, "fences": 2});
    for (key, value) in known.as_object().into_iter().flatten() {
        guard[key] = value.clone();
    }
    from_value(json!({
        "now": 0, "uuid": OWN, "replicaset_uuid": "99999999-0000-4000-8000-000000000009",
        "ro": ro, "read_only": ro, "status": "running", "vclock": {"1": 4711, "2": 12}, "id": 1,
        "replication": [{"id": 1, "uuid": OWN}, second, third],
        "pid": 42, "version": "2.6.0-0-g47aa4e01e", "guard": guard,
    }))
    .unwrap()
}

fn follows(id: u64, uuid: &str, has: u64) -> Value {
    json!({
        "id": id, "uuid": uuid,
        "upstream": {"status": "follow", "peer": "tarsec@10.0.0.2:3301", "lag_s": 0.001, "idle_s": 0.25},
        "downstream_status": "follow", "downstream_vclock": {"1": has, "2": 12},
    })
}

fn record(instance: &str, name: &str) -> Record {
    Record {
        instance: instance.to_owned(),
        replicaset: "99999999-0000-4000-8000-000000000009".to_owned(),
        name: name.to_owned(),
        term: Term::from(7),
        refresh: 340,
        reason: "the lock was free".to_owned(),
        ..fixtures::record()
    }
}

fn sight(session: Option<&str>, record: Record) -> LockSight {
    LockSight {
        index: 1234,
        key: Some(KeySight {
            modify_index: 1234,
            session: session.map(SessionId::new),
            record: Ok(record),
        }),
    }
}

fn entry(health: Health, role: Role) -> CatalogEntry {
    CatalogEntry {
        registered: Registered {
            role,
            instance: OWN.to_owned(),
            replicaset: String::new(),
            term: Term::from(7),
            version: String::new(),
            ttl: Duration::from_secs(7),
        },
        health,
        output: String::new(),
    }
}

fn board() -> Board {
    let member = |instance: &str, name: &str| {
        let member = json!({
            "v": 1, "instance": instance, "replicaset": "r", "name": name, "uri": name, "role": "replica",
            "health": "passing", "reason": "", "term": 7, "lease_ms": 10_000, "priority": 0, "vclock": {},
            "upstreams": {}, "written": 0, "tarantool_version": "", "tarsec_version": "",
        });
        let member: Member = from_value(member).unwrap();
        (instance.to_owned(), member)
    };
    let members = [
        member(OTHER, "10.0.0.2:3301"),
        member(THIRD, "10.0.0.3:3301"),
    ];
    Board {
        members: BTreeMap::from(members),
        ..Board::default()
    }
}

fn state(probe: Probe) -> State {
    let mut state = State::new(fixtures::settings());
    state.instance.link = Link::Up;
    state.instance.probe = Some(probe);
    state.instance.probed_at = Some(at(99.6));
    state.highest_term = Term::from(7);
    state.board = Some((board(), at(98.0)));
    state
}

#[test]
fn a_master_whose_replicas_are_well() {
    let peers = [follows(2, OTHER, 4711), follows(3, THIRD, 4700)];
    let mut state = state(probe(
        false,
        peers,
        &json!({"last_fence": "its agent was asked to stop"}),
    ));
    let own = record(OWN, "10.0.0.1:3301");
    state.session.id = Some(SessionId::new(SESSION));
    state.lock.sight = Some(sight(Some(SESSION), own.clone()));
    state.lock.learned_at = at(98.2);
    state.hold.record = Some(own);
    state.instance.lease = Some(Granted {
        deadline: InstanceTime::default(),
        over_at: at(108.2),
        due_at: at(108.0),
        handed_at: at(98.2),
    });
    state.catalog.told = Some(entry(Health::Passing, Role::Master));
    state.catalog.told_at = at(97.0);
    state.settings.failsafe = true;
    assert!(state.is_serving());
    let reason = crate::decide::decide(&state, now()).reason;
    assert_screen("master.txt", &state, Some(&reason), head());
}

#[test]
fn a_replica_with_everything_wrong_at_once() {
    let stopped = json!({
        "id": 2, "uuid": OTHER,
        "upstream": {"status": "stopped", "peer": "tarsec@10.0.0.2:3301", "idle_s": 61.0,
            "message": "Duplicate key exists in unique index 'primary' in space 'orders'"},
        "downstream_status": "stopped",
    });
    let unknown = json!({"id": 3, "uuid": THIRD});
    let promise =
        json!({"promise": {"to": OTHER, "term": 7, "left_ns": 4_000_000_000_u64}, "unleased": 3});
    let mut state = state(probe(true, [stopped, unknown], &promise));
    state.instance.silent_since = Some(at(81.5));
    let last = Record {
        vclock: from_value(json!({"1": 5523, "2": 12})).unwrap(),
        ..record(OTHER, "10.0.0.2:3301")
    };
    state.lock.unchanged = Some(Unchanged {
        stamp: last.stamp(),
        record: last.clone(),
        seen_at: at(80.0),
        since: at(80.0),
        spoke_at: at(80.0),
        witnessed: true,
    });
    state.instance.kill_failed =
        Some("could not kill process 42: Operation not permitted".to_owned());
    state.lock.sight = Some(sight(Some(SESSION), last));
    state.lock.learned_at = at(80.0);
    state.lock.unreadable = true;
    state.settings.failsafe = true;
    state.consul_fault = Some(ConsulFault {
        why: "could not watch key tarsec/shop/99999999-0000-4000-8000-000000000009/leader: connection refused".to_owned(),
        denied: false,
    });
    state.denied = Some("could not create a session: 403 (Permission denied)".to_owned());
    state.orders.pause = Some(Pause {
        by: "root@db1".to_owned(),
        why: "moving racks".to_owned(),
        cluster: true,
        ..Pause::default()
    });
    let switchover = Switchover {
        target: Some(THIRD.to_owned()),
        by: "root@db1".to_owned(),
        state: SwitchoverState::Undone,
        why: "it did not catch up".to_owned(),
        ..Switchover::nothing()
    };
    state.orders.switchover = Some((1200, switchover));
    state.catalog.told = Some(entry(Health::Critical, Role::Replica));
    state.catalog.told_at = at(70.0);
    let head = Head {
        last_fault: Some(Fault {
            at_ms: WALL_MS - 61_000,
            words:
                "hung instance not killed; why: could not kill process 42: Operation not permitted"
                    .to_owned(),
        }),
        lost: Lost {
            log_lines: 1204,
            dumps: 2,
        },
        ..head()
    };
    let reason = crate::decide::decide(&state, now()).reason;
    assert_screen("troubled.txt", &state, Some(&reason), head);
}

#[test]
fn an_agent_that_knows_nothing_yet() {
    let state = State::new(fixtures::settings());
    assert_screen("nothing.txt", &state, None, head());
}

#[test]
fn a_router_that_misses_a_master() {
    let mut state = RouterState::new(RouterSettings {
        announce: "10.0.0.9:3301".to_owned(),
        interval: Duration::from_secs(1),
    });
    state.identity = Some(Identity {
        uuid: OWN.to_owned(),
        version: "2.6.0-0-g47aa4e01e".to_owned(),
    });
    state.lost = None;
    let master = |name: &str, term: u64| {
        let master =
            json!({"v": 1, "replicaset": "r", "instance": OTHER, "name": name, "term": term});
        (1, from_value(master).unwrap())
    };
    state.vshard.masters = Some(BTreeMap::from([
        ("r1".to_owned(), master("10.0.0.2:3301", 7)),
        ("r2".to_owned(), master("10.0.0.5:3301", 3)),
    ]));
    state.vshard.left_out = vec!["r2".to_owned()];
    state.told = Some(entry(Health::Passing, Role::Router));
    let view = RouterView {
        head: head(),
        announce: "10.0.0.9:3301",
        state: &state,
        reason: Some("router: masters are known"),
    };
    assert_golden("router.txt", &screen::router(&view));
}

/// Every shape that a document has.
#[test]
fn a_document_is_a_tree() {
    let document = vec![
        ("dump", json!("reconciler")),
        ("now", json!(100.123_456)),
        ("nothing", Value::Null),
        (
            "settings",
            json!({"ANNOUNCE_ADDR": "10.0.0.1:3301", "CONSUL_HTTP_TOKEN": "(redacted)", "MASTER_TAGS": ""}),
        ),
        ("vclock", json!({"1": 4711, "2": 12})),
        ("members", json!([OWN, OTHER, THIRD])),
        (
            "state",
            json!({
                "hold": {"record": {"term": 7, "members": [OWN], "paused": false}, "in_doubt": []},
                "orders": {},
                "silent": true,
            "ttl": Duration::from_millis(20_500),
            }),
        ),
        (
            "transitions",
            json!([
                {"at": 1.5, "words": "waiting for the instance", "actions": []},
                {"at": 2.25, "words": "words\nthat break a line \u{1b}[2J", "actions": [{"do": "read_lock"}, {"do": "probe", "why": {"deep": [1, 2]}}]},
            ]),
        ),
    ];
    assert_golden("tree.txt", &tree::text(&document));
}
