//! A login that has to travel in a URI of the database.

use super::{assert_bad, bad, good};

#[test]
fn a_login_that_no_uri_carries_is_refused_where_it_would_become_part_of_one() {
    for (unfit, found) in [
        ("p@ss", "the character @"),
        ("a:b", "the character :"),
        ("a/b", "the character /"),
        ("a?b", "the character ?"),
        ("a#b", "the character #"),
        ("a b", "a blank"),
        ("100%", "a % without two hexadecimal digits"),
        ("pä", "a character that is not visible ASCII"),
    ] {
        let follow = ("REPLICATION", "follow");
        let (user, password) = (("TARANTOOL_USER", "tarsec"), ("TARANTOOL_PASSWORD", unfit));
        // Elsewhere it never travels in a URI.
        good(&[user, password]);
        let allowed = "allowed are letters and digits";
        assert_bad(
            &[follow, user, password],
            &[
                "TARANTOOL_PASSWORD has",
                found,
                "REPLICATION=follow",
                allowed,
            ],
        );
        assert_bad(
            &[
                follow,
                ("TARANTOOL_USER", unfit),
                ("TARANTOOL_PASSWORD", "x"),
            ],
            &["TARANTOOL_USER has", found, allowed],
        );
        assert_bad(
            &[("VSHARD_USER", "storage"), ("VSHARD_PASSWORD", unfit)],
            &[
                "VSHARD_PASSWORD has",
                found,
                "vshard's configuration",
                allowed,
            ],
        );
        assert_bad(&[("VSHARD_USER", unfit)], &["VSHARD_USER has", found]);
    }
    let carried = "a!$&'()*+,;=-._~%40z";
    good(&[
        ("REPLICATION", "follow"),
        ("TARANTOOL_USER", carried),
        ("TARANTOOL_PASSWORD", carried),
        ("VSHARD_USER", carried),
        ("VSHARD_PASSWORD", carried),
    ]);
}

#[test]
fn a_password_that_is_refused_is_not_shown() {
    let lines = bad(&[
        ("REPLICATION", "follow"),
        ("TARANTOOL_USER", "tarsec"),
        ("TARANTOOL_PASSWORD", "very@secret"),
    ]);
    assert!(!lines.concat().contains("secret"), "{lines:?}");
}

#[test]
fn a_login_for_other_members_is_whole_or_the_instances_own() {
    assert!(good(&[]).peers.login.is_none());
    // It never travels in a URI, whatever REPLICATION says.
    let config = good(&[
        ("PEER_USER", "asks"),
        ("PEER_PASSWORD", "very@secret"),
        ("REPLICATION", "follow"),
    ]);
    let (user, password) = config.peers.login.clone().unwrap();
    assert_eq!((&*user, &**password.get()), ("asks", "very@secret"));
    assert!(!format!("{config:?}").contains("very@secret"));
    let alone = [("PEER_PASSWORD", "x")];
    assert_bad(&alone, &["PEER_PASSWORD", "PEER_USER"]);
    let both = [
        ("PEER_USER", "asks"),
        ("PEER_PASSWORD", "x"),
        ("PEER_PASSWORD_FILE", "/nowhere"),
    ];
    assert_bad(&both, &["PEER_PASSWORD", "PEER_PASSWORD_FILE"]);
}

#[test]
fn addresses_of_other_members_are_refused_with_what_is_allowed() {
    let wrong = [("PEER_ADDRS", "db-1:3301, db-2:port")];
    assert_bad(
        &wrong,
        &["PEER_ADDRS", "db-2:port", "host:port", "address/bits"],
    );
    assert_bad(&[("PEER_ADRS", "db-1")], &["PEER_ADRS", "PEER_ADDRS"]);
}
