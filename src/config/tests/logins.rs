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
