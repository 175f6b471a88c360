//! Logins go to addresses that the instance's own configuration or `PEER_ADDRS` names, whatever Consul says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fixtures::*;
use crate::addresses::{PeerAddrs, Whereabouts};
use crate::board::{Board, Member};
use crate::event::Event;
use crate::ids::SessionId;
use crate::plan::{Action, GuardCommand};

const THIRD: &str = "instance-third";
/// The writer of a key listens there.
const RELAY: &str = "203.0.113.66:3301";

fn allowed(text: &str) -> PeerAddrs {
    PeerAddrs::parse(text).unwrap()
}

fn vouched(peers: &str, configured: &[&str], address: &str) -> Option<String> {
    let peers = if peers.is_empty() {
        PeerAddrs::default()
    } else {
        allowed(peers)
    };
    let configured: Vec<String> = configured.iter().map(|it| (*it).to_owned()).collect();
    peers.vouched(&configured, address)
}

#[test]
fn an_address_of_the_instances_configuration_is_vouched_for_however_it_is_written() {
    let configured = [
        "db-2.example:3301",
        "[2001:db8::1]:3301",
        "unix/:/run/a.sock",
    ];
    for (address, expected) in [
        ("db-2.example:3301", "db-2.example:3301"),
        ("DB-2.Example:3301", "db-2.example:3301"),
        ("[2001:0DB8:0::1]:3301", "[2001:db8::1]:3301"),
        ("/run/a.sock", "unix/:/run/a.sock"),
        ("unix/:/run/a.sock", "unix/:/run/a.sock"),
    ] {
        let found = vouched("", &configured, address);
        assert_eq!(found.as_deref(), Some(expected), "{address}");
    }
    for address in [
        "db-2.example:3302",
        "db-2.example",
        "db-2.example.:3301",
        "db-2.example:03301x",
        "db-20.example:3301",
        "evil:1@db-2.example:3301",
        "db-2.example:3301@203.0.113.66:3301",
        "db-2.example:3301/",
        "db-2.example:3301?a=b",
        " db-2.example:3301",
        "[2001:db8::2]:3301",
        "2001:db8::1:3301",
        "/run/b.sock",
        "/run/a.sock\n",
        "",
        ":3301",
    ] {
        assert_eq!(vouched("", &configured, address), None, "{address}");
    }
    // A zone is nothing that this parser knows: the very same words, or nothing.
    let zoned = "[fe80::1%eth0]:3301";
    assert_eq!(vouched("", &[zoned], zoned).as_deref(), Some(zoned));
}

#[test]
fn peer_addrs_allow_addresses_hosts_networks_and_sockets() {
    for (peers, address, fits) in [
        ("db-2:3301", "DB-2:3301", true),
        ("db-2:3301", "db-2:3302", false),
        ("db-1, db-2", "db-2:7", true),
        ("db-2", "db-20:7", false),
        ("10.1.0.0/16", "10.1.255.4:3301", true),
        ("10.1.0.0/16", "10.2.0.0:3301", false),
        ("10.1.2.3/16", "10.1.9.9:3301", true),
        ("10.1.2.3/32", "10.1.2.3:3301", true),
        ("10.1.2.3/32", "10.1.2.2:3301", false),
        ("0.0.0.0/0", "203.0.113.66:1", true),
        ("0.0.0.0/0", "[2001:db8::1]:1", false),
        ("0.0.0.0/0", "db-2:1", false),
        ("[2001:db8::]/32", "[2001:db8:ffff::1]:1", true),
        ("[2001:db8::]/32", "[2001:db9::1]:1", false),
        ("[::]/0", "10.0.0.1:1", false),
        ("[::1]", "[::1]:3301", true),
        ("/run/a.sock", "unix/:/run/a.sock", true),
        ("unix/:/run/a.sock", "/run/a.sock", true),
        ("/run/a.sock", "/run/a.sock.evil", false),
    ] {
        assert_eq!(
            vouched(peers, &[], address).is_some(),
            fits,
            "{peers} {address}"
        );
    }
}

#[test]
fn what_peer_addrs_do_not_understand_is_refused_with_what_is_allowed() {
    for wrong in [
        "",
        "a,",
        "a b",
        "user@db-2:3301",
        "db-2:0",
        "db-2:99999",
        "db-2/16",
        "10.0.0.0/33",
        "[::]/129",
        "10.0.0.0/-1",
        "::1",
    ] {
        let error = PeerAddrs::parse(wrong).unwrap_err();
        assert!(error.contains("host:port"), "{wrong}: {error}");
    }
    let text = "db-2:3301,db-3,10.1.0.0/16,[2001:db8::]/32,unix/:/run/a.sock";
    assert_eq!(allowed(text).to_string(), text);
}

proptest! {
    /// Whatever is used is what was compared: it stands for itself, and has no login and no parameters.
    #[test]
    fn what_is_vouched_for_is_as_it_is_used(address in "[ -~]{0,24}|[a-c0-9@:/?.\\[\\]]{0,12}") {
        let peers = allowed("a,b,0.0.0.0/0,[::]/0");
        if let Some(used) = peers.vouched(&[], &address) {
            prop_assert_eq!(peers.vouched(&[], &used), Some(used.clone()));
            prop_assert!(!used.contains(['@', '?', ' ', ',']));
            prop_assert!(used.eq_ignore_ascii_case(&address) || used.starts_with('['), "{used}");
        }
    }
}

fn announcing(uuid: &str, uri: &str) -> Board {
    let member: Member = serde_json::from_value(serde_json::json!({
        "v": 1, "instance": uuid, "replicaset": "", "name": "b", "uri": uri, "role": "replica",
        "term": 1, "lease_ms": 0,
    }))
    .unwrap();
    Board {
        members: BTreeMap::from([(uuid.to_owned(), member)]),
        ..Board::default()
    }
}

/// One of three, which follows one of the others; `box.cfg.replication` names the two.
fn member() -> Node {
    unattached().attached()
}

fn unattached() -> Node {
    node()
        .with(|settings| {
            settings.peer_addrs = PeerAddrs::default();
            settings.failsafe = true;
        })
        .having(|instance| {
            instance.configured = ["10.0.0.2:3301", "10.0.0.3:3301"]
                .map(str::to_owned)
                .to_vec();
            instance.replication = vec![
                peer_at(OWN, None),
                peer_at(OTHER, Some("replicator@10.0.0.2:3301")),
                peer_at(THIRD, None),
            ];
        })
}

fn seeing(mut node: Node, uuid: &str, uri: &str) -> Node {
    node.hears(Event::BoardSeen {
        asked_at: node.now,
        result: Ok(Box::new(announcing(uuid, uri))),
    });
    node
}

fn address(node: &Node, uuid: &str) -> Whereabouts {
    let probe = node.state.instance.probe.as_ref().unwrap();
    node.state.address(probe, uuid)
}

#[test]
fn a_member_that_is_followed_is_asked_there_whatever_its_key_says() {
    let node = seeing(member(), OTHER, RELAY);
    assert_eq!(address(&node, OTHER).as_deref(), Ok("10.0.0.2:3301"));
    assert!(
        node.state.problems().is_empty(),
        "{:?}",
        node.state.problems()
    );
}

#[test]
fn a_member_that_only_its_key_locates_is_asked_where_the_configuration_agrees() {
    let node = seeing(member(), THIRD, "10.0.0.3:3301");
    assert_eq!(address(&node, THIRD).as_deref(), Ok("10.0.0.3:3301"));
    let node = seeing(member(), THIRD, RELAY);
    let why = address(&node, THIRD).unwrap_err();
    for part in [
        "no login is sent",
        "key",
        RELAY,
        "box.cfg.replication",
        "PEER_ADDRS",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let problems = node.state.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("does not log in to b"), "{problems:?}");
    assert!(
        problems[0].contains("its promise is missing"),
        "{problems:?}"
    );
}

#[test]
fn peer_addrs_vouch_for_what_the_configuration_does_not_name() {
    let node = member().with(|settings| settings.peer_addrs = allowed("203.0.113.66"));
    let node = seeing(node, THIRD, RELAY);
    assert_eq!(address(&node, THIRD).as_deref(), Ok(RELAY));
    assert!(node.state.problems().is_empty());
}

/// Its master is the other instance, of which its record says that it is reached at `uri`.
fn follower_of(uri: &str) -> Node {
    let mut record = record();
    uri.clone_into(&mut record.uri);
    unattached()
        .with(|settings| settings.follow = true)
        .finding(|lock| {
            lock.put_record(Some(SessionId::new("theirs")), &record);
        })
}

/// Whom it is pointed at in the next seconds.
fn pointed(node: &mut Node) -> Vec<String> {
    node.attaches();
    node.watch_shows_lock();
    let mut found = Vec::new();
    let until = node.now + 5.secs();
    while node.now < until {
        for action in &node.turn().actions {
            if let Action::Guard(GuardCommand::Follow { uri, .. }) = action {
                found.extend(uri.clone());
            }
            node.answers(action);
        }
        node.is_watched(100.ms());
    }
    found.dedup();
    found
}

#[test]
fn a_replica_follows_its_master_where_its_configuration_agrees_with_the_record() {
    assert_eq!(
        pointed(&mut follower_of("10.0.0.2:3301")),
        ["10.0.0.2:3301"]
    );
}

/// It knows better where that is.
#[test]
fn a_replica_follows_its_master_where_it_followed_it_before_whatever_the_record_says() {
    assert_eq!(pointed(&mut follower_of(RELAY)), ["10.0.0.2:3301"]);
}

#[test]
fn a_replica_that_knows_no_other_address_stays_with_its_upstream_and_says_so() {
    let mut node = follower_of(RELAY).having(|instance| {
        instance.replication = vec![peer_at(OWN, None), peer_at(OTHER, None)];
    });
    assert_eq!(pointed(&mut node), Vec::<String>::new());
    let problems = node.state.problems();
    assert!(
        problems[0].contains("the record of the lock says"),
        "{problems:?}"
    );
    assert!(
        problems[0].contains("as master it is not followed"),
        "{problems:?}"
    );
}
