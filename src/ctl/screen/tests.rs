//! What the screens look like, as files. After a change on purpose, `WRITE_GOLDEN=1` writes them anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::toys::*;
use super::*;
use crate::consul::Found;
use crate::ctl::build::cluster;
use crate::ctl::paper::{WIDTH_MAX, WIDTH_MIN};
use crate::ctl::view::Signs;
use crate::decide::board::{Ballot, HistoryLine, Member, Party, Returned, WaitingKey};
use crate::decide::ending::{How, Known, Outage};
use crate::decide::ids::SessionId;
use crate::decide::lag::{Arrival, Behind};
use crate::decide::record::{Record, Status};
use crate::decide::router::RouterKey;
use crate::decide::term::Term;
use crate::keys::ClusterKeys;

mod properties;
#[track_caller]
fn assert_golden(name: &str, text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH_MIN, "{line:?} in\n{text}");
        assert_eq!(line, line.trim_end(), "blanks at the end in\n{text}");
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/ctl/golden")
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
fn assert_screen(name: &str, keys: &Keys, verdict: Verdict) {
    let view = keys.view();
    assert_golden(
        &format!("{name}.txt"),
        &status(Paper::PLAIN, &view, "tarsec/shop/"),
    );
    assert_eq!(view.verdict, verdict);
}

#[test]
fn a_healthy_cluster() {
    assert_screen("healthy", &Keys::healthy(), Verdict::Well);
}

/// A cluster of vshard, with a router that has lost a master and a storage that has another configuration.
#[test]
fn a_cluster_of_vshard() {
    let storage = |number, fingerprint: &str| Member {
        fingerprint: Some(fingerprint.to_owned()),
        ..member(number)
    };
    let router = |number: u64, health: &str, reason: &str| RouterKey {
        v: 1,
        instance: uuid(number),
        name: format!("router-{number}.example.net:3301"),
        health: health.to_owned(),
        reason: reason.to_owned(),
        fingerprint: Some("0123456789abcdef".to_owned()),
        problem: None,
        vshard_version: "0.1.24".to_owned(),
        service: None,
        written: NOW - 60,
        written_ms: 0,
        tarsec_version: "0.1.0".to_owned(),
    };
    let refused = Member {
        vshard: Some("the central configuration is refused: Weight must be a number".to_owned()),
        ..storage(3, "0123456789abcdef")
    };
    let lost = format!("no way to the master of replica set {SET}");
    let keys = Keys::none()
        .lock(&record())
        .member(&storage(1, "0123456789abcdef"))
        .member(&storage(2, "fedcba9876543210"))
        .member(&refused)
        .router(&router(
            8,
            "passing",
            "routes to the master of every replica set",
        ))
        .router(&router(9, "warning", &lost))
        .seen(Duration::from_millis(400));
    assert_screen("vshard", &keys, Verdict::Unwell);
}

#[test]
fn a_healthy_cluster_as_json() {
    let order = switchover(SwitchoverState::Done);
    let keys = Keys::healthy()
        .switchover(&order)
        .line(&line(Term::from(7)));
    let mut text = serde_json::to_string_pretty(&keys.view()).unwrap();
    text.push('\n');
    // Lines of JSON may be long.
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/ctl/golden/healthy.json");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default());
}

#[test]
fn one_look_does_not_tell_how_much_of_the_lease_is_left() {
    let keys = Keys::healthy().looked(Duration::ZERO, None);
    assert_screen("one_look", &keys, Verdict::Well);
}

#[test]
fn no_master_since_it_gave_up_the_lock() {
    let last = Record {
        status: Status::Fenced,
        reason: "the instance has died".to_owned(),
        ..record()
    };
    let dead = Member {
        health: "critical".to_owned(),
        reason: "the instance's process has ended".to_owned(),
        ..member(1)
    };
    let keys = Keys::healthy().free_lock(&last).member(&dead);
    assert_screen("no_master", &keys, Verdict::NoMaster);
}

/// The member's key says beside that whether it may become master.
#[test]
fn a_replica_at_which_nothing_arrives_is_critical_as_in_the_catalog() {
    let cut_off = Member {
        cut_off: Some("replication has stopped".to_owned()),
        ..member(3)
    };
    let view = Keys::healthy().member(&cut_off).view();
    let health: Vec<&str> = view.replicasets[0]
        .members
        .iter()
        .map(|member| &*member.health)
        .collect();
    assert_eq!(health, ["passing", "passing", "critical"]);
    assert_eq!(view.verdict, Verdict::Unwell);
}

#[test]
fn no_master_since_nobody_is_fit() {
    let last = Record {
        status: Status::Fenced,
        ..record()
    };
    let unfit = Ballot {
        excluded: Some("its PRIORITY is negative".to_owned()),
        ..ballot(2)
    };
    let of_another_election = Ballot {
        excluded: Some("it lacked 12 rows".to_owned()),
        index: 1,
        ..ballot(3)
    };
    let keys = Keys::healthy().free_lock(&last);
    let keys = keys.ballot(&unfit).ballot(&of_another_election);
    assert_screen("nobody_fit", &keys, Verdict::NoMaster);
}

#[test]
fn a_free_lock_whose_last_holder_may_be_writable() {
    assert_screen(
        "free_lock",
        &Keys::healthy().free_lock(&record()),
        Verdict::NoMaster,
    );
}

#[test]
fn a_master_on_its_way() {
    let coming = Record {
        status: Status::Promoting,
        ..record()
    };
    assert_screen(
        "promoting",
        &Keys::healthy().lock(&coming),
        Verdict::NoMaster,
    );
}

#[test]
fn a_master_that_is_silent_and_one_whose_lease_is_over() {
    let silent = Keys::healthy().looked(Duration::from_secs(5), None);
    assert_screen("silent", &silent, Verdict::Unwell);
    let over = Keys::healthy().looked(Duration::from_secs(30), Some(Duration::from_secs(11)));
    assert_screen("lease_over", &over, Verdict::NoMaster);
}

#[test]
fn a_silent_master_that_may_go_on_by_promises() {
    let record = Record {
        failsafe: true,
        ..record()
    };
    let keys = Keys::healthy().lock(&record);
    let keys = keys.looked(Duration::from_secs(60), None);
    assert_screen("failsafe", &keys, Verdict::Unwell);
    let freed = Keys::healthy().free_lock(&record);
    assert_screen("failsafe_free", &freed, Verdict::NoMaster);
}

#[test]
fn a_paused_replica_set() {
    let paused = Record {
        paused: true,
        ..record()
    };
    let keys = Keys::healthy().lock(&paused).pause(&pause());
    assert_screen("paused", &keys, Verdict::Unwell);
    let fresh = Keys::healthy().pause(&pause());
    assert_screen("paused_unnoticed", &fresh, Verdict::Unwell);
    let lost = keys.looked(Duration::from_secs(60), None);
    assert_screen("paused_silent", &lost, Verdict::Unwell);
    let freed = Keys::healthy().free_lock(&paused);
    assert_screen("paused_free", &freed, Verdict::NoMaster);
}

#[test]
fn a_paused_cluster() {
    let paused = Record {
        paused: true,
        ..record()
    };
    let keys = Keys::healthy().lock(&paused).cluster_pause(&pause());
    assert_screen("paused_cluster", &keys, Verdict::Unwell);
}

#[test]
fn a_lagging_replica() {
    let late = Member {
        behind: Some(behind(983, 4_200)),
        priority: -1,
        health: "warning".to_owned(),
        reason: "it lacks 983 rows of what the master had at its last word, MAX_LAG_ROWS is 100"
            .to_owned(),
        ..member(3)
    };
    let restored = Member {
        behind: Some(behind(2_499_001, 7_100_000)),
        ..member(2)
    };
    let keys = Keys::healthy().member(&late).member(&restored);
    assert_screen("lagging", &keys, Verdict::Unwell);
}

/// The holder's record does not name an anonymous replica: its own agent says whether it follows.
#[test]
fn an_anonymous_replica() {
    let anonymous = Member {
        anonymous: true,
        ..member(3)
    };
    let mut record = record();
    record.following.retain(|known| *known != uuid(3));
    record.members.retain(|known| *known != uuid(3));
    let keys = Keys::healthy().lock(&record).member(&anonymous);
    assert_screen("anonymous", &keys, Verdict::Well);
    let apart = Member {
        upstreams: BTreeMap::from([(uuid(1), "disconnected".to_owned())]),
        ..anonymous
    };
    let view = keys.member(&apart).view();
    let notes = &view.replicasets[0].notes;
    assert_eq!(
        notes,
        &[format!("{} does not replicate from the master", name(3))]
    );
}

/// Neither zero nor a number that might be fine: the screen says that they lack rows, and for how long they have got
/// none.
#[test]
fn replicas_at_which_rows_do_not_arrive() {
    let stopped = Member {
        behind: Some(Behind {
            arrival: Arrival::Stopped,
            ..behind(812, 12_300)
        }),
        cut_off: Some("replication has stopped".to_owned()),
        reason: "replica: the master is db-1.example.net:3301; replication from \
                 db-1.example.net:3301 has stopped: Duplicate key exists in unique index 'pk'"
            .to_owned(),
        ..member(2)
    };
    let apart = Member {
        behind: Some(Behind {
            arrival: Arrival::Disconnected,
            ..behind(0, 7_100_000)
        }),
        ..member(3)
    };
    let keys = Keys::healthy().member(&stopped).member(&apart);
    assert_screen("not_arriving", &keys, Verdict::Unwell);
}

/// A lag that was measured under another master, or by an agent that did not know, is no lag behind this one.
#[test]
fn how_far_behind_another_master_a_member_was_is_unknown() {
    let before = Member {
        behind: Some(Behind {
            of: uuid(3),
            ..behind(0, 0)
        }),
        ..member(2)
    };
    let older = Member {
        behind: None,
        ..member(3)
    };
    let view = Keys::healthy().member(&before).member(&older).view();
    for member in &view.replicasets[0].members {
        let known = (member.behind_rows, member.behind_ms, member.arrival);
        assert_eq!(known, (None, None, None), "{}", member.name);
    }
    let screen = status(Paper::PLAIN, &view, "tarsec/shop/");
    let shown = screen.lines().filter(|line| line.contains("replica    "));
    assert_eq!(
        shown.filter(|line| line.contains(" ?  ")).count(),
        2,
        "{screen}"
    );
}

#[test]
fn a_member_that_is_gone_and_one_that_nobody_knows() {
    let record = Record {
        following: vec![uuid(2)],
        members: vec![uuid(1), uuid(2), uuid(3), uuid(4)],
        ..record()
    };
    let keys = Keys::healthy().lock(&record);
    assert_screen("member_gone", &keys, Verdict::Unwell);
}

#[test]
fn a_switchover_that_runs_and_how_it_ended() {
    let state = SwitchoverState::Running;
    let keys = Keys::healthy().switchover(&switchover(state));
    assert_screen("switchover_running", &keys, Verdict::Well);
    let undone = Switchover {
        why: "db-2.example.net:3301 lacked 12 rows when its time was over".to_owned(),
        ..switchover(SwitchoverState::Undone)
    };
    let keys = Keys::healthy().switchover(&undone);
    assert_screen("switchover_undone", &keys, Verdict::Well);
    let long_ago = Switchover {
        at: NOW - 3_600,
        ..undone
    };
    assert_screen(
        "healthy",
        &Keys::healthy().switchover(&long_ago),
        Verdict::Well,
    );
}

#[test]
fn rows_at_risk_and_what_came_back() {
    let back = HistoryLine {
        at: NOW - 90_000,
        at_ms: 0,
        returned: Some(Returned {
            at: NOW - 80_000,
            at_ms: 0,
            rows: 1,
            known: None,
        }),
        ..line(Term::from(5))
    };
    let harmless = HistoryLine {
        rows_at_risk: 0,
        ..line(Term::from(6))
    };
    let keys = Keys::healthy()
        .line(&line(Term::from(7)))
        .line(&harmless)
        .line(&back);
    assert_screen("rows_at_risk", &keys, Verdict::Well);
    assert_golden("history.txt", &history(Paper::PLAIN, &keys.view()));
}

#[test]
fn a_change_of_hands_says_no_more_than_is_known() {
    let planned = HistoryLine {
        ended: Some(How::Switchover),
        by: Some("anna@ops1".to_owned()),
        outage: Some(Outage::of(Some(23), Some(23))),
        rows_at_risk: 0,
        risk_known: Some(Known::Exact),
        ..line(Term::from(6))
    };
    let lost = HistoryLine {
        ended: Some(How::MachineLost),
        outage: Some(Outage::of(Some(312), Some(10_312))),
        rows_at_risk: 0,
        risk_known: Some(Known::AtLeast),
        last_word_age_ms: Some(10_000),
        rate_rows_per_s: Some(700),
        ..line(Term::from(7))
    };
    let keys = Keys::healthy().line(&lost).line(&planned);
    assert_screen("machine_lost", &keys, Verdict::Well);
    assert_golden("history_known.txt", &history(Paper::PLAIN, &keys.view()));
}

#[test]
fn a_master_that_follows_itself_is_not_waited_for() {
    // As an older agent wrote it.
    let has_them = HistoryLine {
        from: Some(party(1)),
        rows_at_risk: 0,
        last_word_age_ms: Some(10_000),
        rate_rows_per_s: Some(700),
        ..line(Term::from(5))
    };
    let lacks_them = HistoryLine {
        from: Some(party(1)),
        risk_known: Some(Known::AtLeast),
        ..line(Term::from(6))
    };
    let doubtful = HistoryLine {
        returned: Some(Returned {
            at: NOW - 80_000,
            at_ms: 0,
            rows: 3,
            known: Some(Known::AtMost),
        }),
        ..line(Term::from(7))
    };
    let keys = Keys::healthy().line(&doubtful).line(&lacks_them);
    assert_screen("same_master", &keys.line(&has_them), Verdict::Well);
}

#[test]
fn operating_page_shows_what_status_prints() {
    let page = include_str!("../../../docs/OPERATING.md");
    assert!(page.contains(include_str!("../golden/rows_at_risk.txt")));
}

#[test]
fn two_replica_sets_one_of_them_without_a_master() {
    let other = Record {
        replicaset: "c0ffee00-0000-4000-8000-000000000002".to_owned(),
        status: Status::Fenced,
        name: "a-rather-long-name.of-a-machine.in.a.datacenter.example.net:3301".to_owned(),
        instance: uuid(7),
        members: vec![uuid(7)],
        ..record()
    };
    let alone = Member {
        name: other.name.clone(),
        replicaset: other.replicaset.clone(),
        ..member(7)
    };
    let keys = Keys::healthy().free_lock(&other).member(&alone);
    assert_screen("two_replica_sets", &keys, Verdict::NoMaster);
    let view = keys.view().only(SET);
    assert_eq!(view.verdict, Verdict::Well);
}

#[test]
fn a_lock_key_that_cannot_be_understood() {
    let key = format!("{SET}/leader");
    let keys = Keys::healthy().put(&key, b"\xffnonsense", Some("session"));
    assert_screen("garbage", &keys, Verdict::NoMaster);
    let keys = Keys::healthy().put(&key, br#"{"v":9}"#, Some("session"));
    assert_screen("unknown_version", &keys, Verdict::NoMaster);
}

#[test]
fn an_empty_cluster_and_one_without_a_lock() {
    assert_screen("empty", &Keys::none(), Verdict::NoMaster);
    assert_screen(
        "no_lock",
        &Keys::none().member(&member(2)),
        Verdict::NoMaster,
    );
}

#[test]
fn consul_does_not_answer() {
    let error = ConsulError::Unreachable {
        what: "read keys tarsec/shop/".to_owned(),
        advice: "CONSUL_HTTP_ADDR is http://127.0.0.1:8500"
            .to_owned()
            .into(),
        source: "connection refused".into(),
    };
    let text = unknown(
        Paper::PLAIN,
        "shop",
        &error,
        NOW * 1000,
        Some((NOW - 40) * 1000),
    );
    assert_golden("unreachable.txt", &text);
}

#[test]
fn consul_denies_it() {
    let error = ConsulError::Denied {
        what: "read keys tarsec/shop/".to_owned(),
        code: 403,
        message: "Permission denied".to_owned(),
        advice: "the token lacks a right".to_owned().into(),
    };
    let text = unknown(Paper::PLAIN, "shop", &error, NOW * 1000, None);
    assert_golden("denied.txt", &text);
}

#[test]
fn agents_that_have_not_seen_their_instances_are_shown() {
    let wrong = WaitingKey {
        v: 1,
        name: "db-7.example.net:3301".to_owned(),
        why: "could not log in: Incorrect password".to_owned(),
        written_ms: (NOW - 4) * 1000,
        tarsec_version: String::new(),
    };
    let none = Keys::none().waiting("one", &wrong);
    assert_screen("waiting", &none, Verdict::NoMaster);
    let healthy = Keys::healthy().waiting("one", &wrong);
    assert_eq!(healthy.view().verdict, Verdict::Unwell);
}

#[test]
fn a_master_that_is_dead_in_a_pause_is_none() {
    let dead = Member {
        dead: true,
        health: "critical".to_owned(),
        reason: "LEFT AS IT IS: its process is dead".to_owned(),
        ..member(1)
    };
    let paused = Record {
        paused: true,
        ..record()
    };
    let keys = Keys::healthy().lock(&paused).member(&dead).pause(&pause());
    let seen = keys.seen(Duration::from_millis(400));
    assert_screen("dead_in_pause", &seen, Verdict::NoMaster);
}

#[test]
fn a_terminal_has_its_own_width_and_colours_for_states_and_else_the_same_text() {
    let view = Keys::healthy().view();
    let plain = status(Paper::PLAIN, &view, "tarsec/shop/");
    let coloured = status(Paper::terminal(0, true), &view, "tarsec/shop/");
    assert!(coloured.contains("\u{1b}[32mok\u{1b}[0m"), "{coloured}");
    let mut stripped = coloured;
    for code in ["\u{1b}[32m", "\u{1b}[33m", "\u{1b}[1;31m", "\u{1b}[0m"] {
        stripped = stripped.replace(code, "");
    }
    assert_eq!(stripped, plain);
    for (columns, width) in [(20, WIDTH_MIN), (100, 100), (1_000, WIDTH_MAX)] {
        let wide = status(Paper::terminal(columns, false), &view, "tarsec/shop/");
        let first = wide.lines().next().unwrap();
        assert_eq!(first.chars().count(), width);
    }
}

#[test]
fn nothing_that_stands_in_consul_moves_the_cursor() {
    let evil = Member {
        name: "\u{1b}[2J\u{202e}db".to_owned(),
        health: "crit\r\nical\u{7}".to_owned(),
        reason: "a\nb\u{9b}31m".to_owned(),
        ..member(2)
    };
    let text = status(
        Paper::PLAIN,
        &Keys::healthy().member(&evil).view(),
        "tarsec/shop/",
    );
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    assert!(!text.contains('\u{202e}'), "{text:?}");
}
