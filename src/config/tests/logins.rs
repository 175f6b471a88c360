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

#[test]
fn an_address_is_refused_without_its_login() {
    for (name, value) in [
        ("CONSUL_HTTP_ADDR", "http://admin:SECRET@consul:8500"),
        ("CONSUL_HTTP_ADDR", "admin:SECRET@consul:8500"),
        ("TARANTOOL_ADDR", "admin:SECRET@db-1:3301"),
        ("TARANTOOL_ADDR", "admin:SEC RET@db-1:3301"),
        ("ANNOUNCE_ADDR", "admin:SECRET@db-1:3301"),
        ("TARANTOOL_CONTROL", "unix/:admin:SECRET@/run/x"),
        ("CLUSTER_NAME", "admin:SECRET@db-1"),
        ("VSHARD_CONFIG_KEY", "admin:SECRET@db-1"),
        ("MASTER_LEASE", "admin:SECRET@db-1"),
    ] {
        let lines = bad(&[(name, value)]).concat();
        assert!(lines.contains(&format!("{name} is \"")), "{lines}");
        assert!(lines.contains("(redacted)@"), "{lines}");
        assert!(!lines.contains("SEC") && !lines.contains("RET@"), "{lines}");
    }
}

#[test]
fn a_secret_where_its_files_name_belongs_is_not_shown() {
    for name in [
        "TARANTOOL_PASSWORD_FILE",
        "VSHARD_PASSWORD_FILE",
        "CONSUL_HTTP_TOKEN_FILE",
    ] {
        let user = [("TARANTOOL_USER", "tarsec"), ("VSHARD_USER", "storage")];
        let lines = bad(&[user[0], user[1], (name, "SECRET-6f1b")]).concat();
        assert!(lines.contains(name), "{lines}");
        assert!(!lines.contains("SECRET"), "{lines}");
        let shown = bad(&[user[0], user[1], (name, "/nowhere/consul.token")]).concat();
        assert!(shown.contains("/nowhere/consul.token"), "{shown}");
    }
}
