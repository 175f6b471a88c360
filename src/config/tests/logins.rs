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
