use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::decide::check::Trail;
use crate::decide::decide;
use crate::decide::event::Event;
use crate::decide::fixtures;
use crate::decide::ids::SessionId;
use crate::decide::sight::{KeySight, LockSight};
use crate::decide::state::State;

const LEASE: Duration = fixtures::LEASE;

fn at(seconds: u64) -> Tick {
    Tick::at(Duration::from_secs(seconds))
}

/// A replica that follows the other instance, heard 100 s after its agent's start.
fn replica() -> Snapshot {
    let mut state = State::new(fixtures::settings());
    let probe = json!({
        "now": 0, "uuid": "own", "replicaset_uuid": "set", "ro": true, "read_only": true, "status": "running",
        "vclock": {"1": 5}, "id": 2, "pid": 42,
        "replication": [{"id": 1, "uuid": fixtures::OTHER, "upstream": {"status": "follow", "idle_s": 0.5}}],
        "guard": {"term": 6, "deadline": 0, "leased": false, "landed": true},
    });
    let record = fixtures::record();
    let record = crate::decide::record::Record {
        vclock: BTreeMap::from([("1".to_owned(), 8)]),
        ..record
    };
    let sight = LockSight {
        index: 9,
        key: Some(KeySight {
            modify_index: 9,
            session: Some(SessionId::new("theirs")),
            record: Ok(record),
        }),
    };
    let (asked_at, by_watch, result) = (at(100), true, Ok(sight));
    state.apply(
        Event::LockRead {
            asked_at,
            by_watch,
            result,
        },
        at(100),
    );
    let probe = Box::new(serde_json::from_value(probe).unwrap());
    let process = Ok(());
    state.apply(Event::Attached { probe, process }, at(100));
    let plan = decide(&state, at(100));
    Snapshot::of(&state, &plan, &Trail::default(), at(100))
}

/// What is asked by GET, one second after the loop last ran.
fn get(snapshot: &Snapshot, target: &str) -> Reply {
    asked(&Method::GET, snapshot, target)
}

fn asked(method: &Method, snapshot: &Snapshot, target: &str) -> Reply {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    match page(method, path, query) {
        Ok(page) => reply(page, path, "shop", snapshot, at(100), at(101)),
        Err(refusal) => refusal.reply(),
    }
}

#[test]
fn every_page_has_its_status_for_yes_and_for_no() {
    let (nobody, replica) = (Snapshot::of_nobody(LEASE), replica());
    let table = [
        ("/primary", 503, 503),
        ("/master", 503, 503),
        ("/read-write", 503, 503),
        ("/leader", 503, 503),
        ("/replica", 503, 200),
        ("/read-only", 503, 200),
        ("/health", 503, 200),
        ("/liveness", 200, 200),
        ("/readiness", 503, 200),
        ("/api/leader-check", 404, 404),
        ("/api/leader-check/503", 503, 503),
        ("/api/leader-check/400", 400, 400),
        ("/api/raft-health", 500, 200),
        ("/api/lb-check", 200, 200),
        ("/replica?lag=3", 503, 200),
        ("/replica?lag=2", 503, 503),
        ("/replica?idle=2s", 503, 200),
        ("/replica?idle=1s", 503, 503),
        ("/read-only?lag=3&idle=2s", 503, 200),
        ("/read-only?lag=3&idle=1s", 503, 503),
    ];
    for (target, of_nobody, of_replica) in table {
        let status = |snapshot| get(snapshot, target).status.as_u16();
        assert_eq!(
            (status(&nobody), status(&replica)),
            (of_nobody, of_replica),
            "{target}"
        );
    }
}

#[test]
fn what_is_no_page_is_refused_in_words() {
    let table = [
        ("/", 404, "no such page"),
        ("/primary/", 404, "no such page"),
        ("/PRIMARY", 404, "no such page"),
        ("/api/leader-check/", 400, "from 400 to 599"),
        ("/api/leader-check/200", 400, "from 400 to 599"),
        ("/api/leader-check/99999999999", 400, "from 400 to 599"),
        ("/primary?lag=1", 400, "/primary takes no parameters"),
        ("/replica?lag", 400, "lag is a number"),
        ("/replica?lag=-1", 400, "lag is a number"),
        ("/replica?lags=1", 400, "the parameters are"),
        ("/replica?lag=1&lag=2", 400, "lag is given twice"),
        ("/replica?idle=5", 400, "with its unit"),
        ("/replica?idle=5%73", 400, "with its unit"),
    ];
    let replica = replica();
    for (target, status, words) in table {
        let reply = get(&replica, target);
        assert_eq!(reply.status, status, "{target}: {}", reply.body);
        assert!(reply.body.contains(words), "{target}: {}", reply.body);
    }
}

#[test]
fn other_methods_are_refused_where_there_is_a_page() {
    let replica = replica();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::TRACE] {
        let reply = asked(&method, &replica, "/health");
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
        let response = reply.response(&method);
        assert_eq!(response.headers()[ALLOW], METHODS);
        assert_eq!(asked(&method, &replica, "/nowhere").status, 404);
    }
}

#[test]
fn head_and_options_have_the_status_of_get() {
    let replica = replica();
    for target in ["/primary", "/replica", "/liveness", "/nowhere"] {
        let status = get(&replica, target).status;
        for method in [Method::HEAD, Method::OPTIONS] {
            let reply = asked(&method, &replica, target);
            assert_eq!(reply.status, status, "{method} {target}");
        }
    }
    let options = asked(&Method::OPTIONS, &replica, "/replica").response(&Method::OPTIONS);
    assert_eq!(options.headers()[ALLOW], METHODS);
}

#[test]
fn a_body_says_who_answers_and_why_not() {
    let body: serde_json::Value = serde_json::from_str(&get(&replica(), "/primary").body).unwrap();
    let expected = json!({
        "check": "/primary", "ok": false, "why": "the instance is read-only", "cluster": "shop", "role": "replica",
        "name": "10.0.0.1:3301", "instance": "own", "replicaset": "set", "term": 6, "lease_left_ms": null,
        "master": "10.0.0.2:3301", "behind_rows": 3, "idle_ms": 1500,
        "reason": "replica: the master is 10.0.0.2:3301",
    });
    assert_eq!(body, expected);
}

proptest! {
    #[test]
    fn any_target_is_a_page_or_refused(path in "(/[a-z-]{0,12}){0,3}(/[0-9]{0,20})?", query in "[ -~]{0,40}") {
        let snapshot = Snapshot::of_nobody(LEASE);
        if let Ok(page) = page(&Method::GET, &path, Some(&query)) {
            let reply = reply(page, &path, "shop", &snapshot, at(0), at(1));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&reply.body).is_ok());
        }
    }
}
