use std::time::Duration;

use proptest::prelude::*;

use super::settings::{Fallback, settings};
use super::*;
use crate::plain;

mod commands;
mod http;
mod logins;

fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_iter(
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn good(variables: &[(&str, &str)]) -> Config {
    read(variables).unwrap_or_else(|error| panic!("{variables:?}: {error}"))
}

/// The lines of the errors, which there must be.
fn bad(variables: &[(&str, &str)]) -> Vec<String> {
    read(variables)
        .expect_err("an error")
        .to_string()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn assert_bad(variables: &[(&str, &str)], parts: &[&str]) {
    let lines = bad(variables);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} is not in {:?}", lines[0]);
    }
}

/// A value that one of the settings may have had, with something else in it.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[0-9]{1,25}(ns|us|ms|s|m|h|d| )?",
        "(http|https|unix|)(:|:/|://)?[a-z0-9.:@\\[\\]/%-]{0,30}",
        "[a-z]{0,12}(,[a-z]{0,12}){0,3}",
        "-?[0-9]{0,20}",
    ]
}

proptest! {
    #[test]
    fn any_environment_is_a_configuration_or_sentences(
        values in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..6),
    ) {
        let names: Vec<&str> = settings().map(|setting| setting.name).collect();
        let variables = values
            .into_iter()
            .map(|(at, value)| (at.get(&names).to_string(), value));
        match Config::from_iter(variables) {
            Ok(config) => prop_assert!(!config.effective().is_empty()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_environment_of_a_command_is_a_configuration_or_sentences(name in "CONSUL_[A-Z_]{0,20}", value in any_value()) {
        drop(OperatorConfig::from_iter([(name, value)]));
    }
}

#[test]
fn an_empty_environment_is_enough() {
    let config = good(&[]);
    assert_eq!(
        config.tarantool.addr,
        TarantoolAddr::Tcp("127.0.0.1:3301".to_owned())
    );
    assert_eq!(
        config.announce,
        Announce {
            host: String::new(),
            port: 3301,
            id: "127.0.0.1:3301".to_owned()
        }
    );
    assert_eq!(config.consul.base_url, "http://127.0.0.1:8500");
    assert_eq!(
        config.catalog.naming,
        ServiceNaming::Prefix("tarantool".to_owned())
    );
    assert_eq!(config.timing.lease(), Duration::from_secs(10));
    assert_eq!(config.timing.session_ttl(), Duration::from_secs(15));
    assert_eq!(config.timing.healthcheck_interval(), Duration::from_secs(1));
    assert_eq!(config.timing.healthcheck_timeout(), Duration::from_secs(2));
    assert_eq!(config.timing.liveness_interval(), Duration::from_millis(50));
    assert_eq!(
        (
            config.tarantool.user,
            config.tarantool.password.get().as_str()
        ),
        (None, "")
    );
}

#[test]
fn an_empty_value_is_no_value() {
    let blank: Vec<(&str, &str)> = settings()
        .map(|setting| setting.name)
        .filter(|name| {
            ![
                "CLUSTER_NAME",
                "CONSUL_KV_PREFIX",
                "CONSUL_LOCK_SESSION_NAME",
            ]
            .contains(name)
        })
        .map(|name| (name, ""))
        .collect();
    assert_eq!(good(&blank).effective(), good(&[]).effective());
}

#[test]
fn a_blank_name_is_an_error() {
    for name in [
        "CLUSTER_NAME",
        "CONSUL_KV_PREFIX",
        "CONSUL_LOCK_SESSION_NAME",
    ] {
        assert_bad(&[(name, "")], &[name, "\"\"", "allowed is"]);
    }
}

#[test]
fn every_default_of_the_table_changes_nothing_when_it_is_set() {
    for setting in settings() {
        match setting.default {
            Fallback::Value(value) => {
                assert_eq!(
                    good(&[(setting.name, value)]).effective(),
                    good(&[]).effective(),
                    "{}",
                    setting.name
                );
            }
            Fallback::Derived(_) | Fallback::Unset => {}
        }
    }
}

#[test]
fn effective_settings_list_every_variable_but_aliases() {
    let config = good(&[]);
    let listed: Vec<&str> = config
        .effective()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let expected: Vec<&str> = settings()
        .map(|setting| setting.name)
        .filter(|name| !name.ends_with("_FILE") && *name != "SLAVE_TAGS")
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn effective_settings_can_be_set_again() {
    let variables = [
        ("TARANTOOL_ADDR", "db-1:3302"),
        ("ANNOUNCE_ADDR", "[2001:db8::1]:3303"),
        ("PRIORITY", "-1"),
        ("MASTER_LEASE", "4s"),
        ("CONSUL_HTTP_ADDR", "https://consul:8501"),
        ("CONSUL_HTTP_SSL_VERIFY", "f"),
        ("CONSUL_CLIENT_CERT", "/c.pem"),
        ("CONSUL_CLIENT_KEY", "/k.pem"),
        ("CONSUL_SERVICE_NAME", "db"),
        ("REPLICA_TAGS", "a, b"),
        ("LOG_LEVEL", "DEBUG"),
        ("CONSUL_LOCK_KEY", "resec/.lock"),
    ];
    let first = good(&variables);
    assert_eq!(first.announce.host, "2001:db8::1");
    let listed = first.effective();
    let again: Vec<(&str, &str)> = listed
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    assert_eq!(good(&again).effective(), listed);
}

#[test]
fn secrets_are_shown_nowhere() {
    let config = good(&[
        ("TARANTOOL_USER", "tarsec"),
        ("TARANTOOL_PASSWORD", "hush-1"),
        ("CONSUL_HTTP_TOKEN", "hush-2"),
        ("CONSUL_HTTP_AUTH", "someone:hush-3"),
    ]);
    assert_eq!(config.tarantool.password.get().as_str(), "hush-1");
    assert_eq!(
        config.consul.basic_auth,
        Some(("someone".to_owned(), "hush-3".to_owned()))
    );
    assert!(!format!("{config:?}").contains("hush"), "{config:?}");
    let lines = bad(&[
        ("CONSUL_HTTP_TOKEN", "hush hush"),
        ("CONSUL_HTTP_AUTH", ":hush"),
    ]);
    assert_eq!(lines.len(), 2);
    assert!(!lines.concat().contains("hush"), "{lines:?}");
}

#[test]
fn all_errors_are_shown_at_once() {
    let lines = bad(&[
        ("MASTER_LEASE", "10"),
        ("TARANTOOL_ADDR", "nowhere"),
        ("CONSUL_HTTP_SSL", "yes"),
        ("CONSUL_HTTP_AUTH", ":"),
        ("PRIORITY", "high"),
        ("LOG_FORMAT", "xml"),
        ("MASTER_TAG", "m"),
        ("GUARD", "iron"),
        ("HUNG_INSTANCE_ACTION", "pray"),
    ]);
    assert_eq!(lines.len(), 9, "{lines:#?}");
}

#[test]
fn a_duration_needs_a_unit() {
    assert_bad(
        &[("MASTER_LEASE", "10")],
        &["MASTER_LEASE is \"10\"", "a number with its unit"],
    );
    assert_bad(
        &[("MASTER_LEASE", "soon")],
        &["MASTER_LEASE is \"soon\"", "such as 10s"],
    );
    assert_bad(
        &[("CONSUL_DEREGISTER_SERVICE_AFTER", "10s")],
        &["allowed is 1m"],
    );
}

#[test]
fn durations_that_do_not_fit_together_are_an_error() {
    assert_bad(
        &[("MASTER_LEASE", "20s")],
        &["CONSUL_LOCK_TTL is 15s", "MASTER_LEASE (20s)"],
    );
    assert_bad(
        &[("MASTER_LEASE", "1s")],
        &["MASTER_LEASE is 1s", "2s to 1m"],
    );
    assert_bad(
        &[("HEALTHCHECK_TIMEOUT", "6s")],
        &["HEALTHCHECK_TIMEOUT is 6s", "at most 5s"],
    );
}

#[test]
fn a_short_lease_shortens_what_must_fit_into_it() {
    let timing = good(&[("MASTER_LEASE", "2s")]).timing;
    assert_eq!(timing.healthcheck_interval(), Duration::from_millis(500));
    assert_eq!(timing.healthcheck_timeout(), Duration::from_secs(1));
    let timing = good(&[("HEALTHCHECK_INTERVAL", "20ms")]).timing;
    assert_eq!(timing.liveness_interval(), Duration::from_millis(20));
}

#[test]
fn vshard_is_seen_to_unless_told_otherwise() {
    let config = good(&[]);
    assert_eq!(config.vshard.role, Role::Auto);
    assert!(config.vshard.on);
    assert_eq!(config.catalog.router_tags, ["router"]);
    let config = good(&[
        ("ROLE", "router"),
        ("VSHARD_CONFIG_KEY", "shop/vshard"),
        ("VSHARD_USER", "storage"),
        ("VSHARD_PASSWORD", "secret"),
    ]);
    assert_eq!(config.vshard.role, Role::Router);
    assert_eq!(config.vshard.config_key.as_deref(), Some("shop/vshard"));
    assert!(!format!("{config:?}").contains("secret"));
    assert!(!good(&[("VSHARD", "off")]).vshard.on);
}

#[test]
fn what_contradicts_itself_about_vshard_is_refused() {
    assert_bad(&[("ROLE", "master")], &["ROLE", "auto, storage or router"]);
    assert_bad(&[("VSHARD", "on")], &["VSHARD", "auto or off"]);
    assert_bad(
        &[("ROLE", "router"), ("VSHARD", "off")],
        &["VSHARD", "auto, where ROLE is router"],
    );
    assert_bad(
        &[("VSHARD_CONFIG_KEY", "a"), ("VSHARD", "off")],
        &["VSHARD", "auto, where VSHARD_CONFIG_KEY is set"],
    );
    assert_bad(
        &[("VSHARD_PASSWORD", "secret")],
        &["VSHARD_PASSWORD", "VSHARD_USER"],
    );
}

#[test]
fn a_typo_is_an_error_that_suggests_a_name() {
    assert_bad(
        &[("MASTER_LEAES", "10s")],
        &["MASTER_LEAES is not a setting", "MASTER_LEASE"],
    );
    assert_bad(&[("CONSUL_HTTP_ADRESS", "x")], &["CONSUL_HTTP_ADDR"]);
    assert_bad(&[("TARANTOOL_PASS", "x")], &["TARANTOOL_PASSWORD"]);
    assert_bad(
        &[("consul_http_addr", "x")],
        &["consul_http_addr is not", "CONSUL_HTTP_ADDR"],
    );
}

#[test]
fn variables_of_consul_tarantool_and_kubernetes_are_left_alone() {
    good(&[
        ("CONSUL_GRPC_ADDR", "x"),
        ("CONSUL_PARTITION", "x"),
        ("CONSUL_TOKEN", "x"),
        ("TT_LISTEN", "3301"),
        ("TARANTOOL_USER_NAME", "x"),
        ("CONSUL_SERVICE_HOST", "10.0.0.1"),
        ("CONSUL_SERVICE_PORT", "8500"),
        ("CONSUL_SERVICE_PORT_HTTP", "8500"),
        ("CONSUL_PORT_8500_TCP_ADDR", "10.0.0.1"),
        ("TARANTOOL_SERVICE_HOST", "10.0.0.2"),
        ("TARANTOOL_PORT_3301_TCP", "tcp://10.0.0.2:3301"),
        ("LOGNAME", "root"),
    ]);
    assert_bad(
        &[("CONSUL_SERVICE_PORT", "8500")],
        &["CONSUL_SERVICE_PORT is not a setting"],
    );
}

#[test]
fn the_instance_may_listen_on_a_socket() {
    for addr in ["/run/t.sock", "unix/:/run/t.sock"] {
        let config = good(&[("TARANTOOL_ADDR", addr)]);
        assert_eq!(
            config.tarantool.addr,
            TarantoolAddr::Unix("/run/t.sock".into())
        );
        assert_eq!(
            config.announce,
            Announce {
                host: String::new(),
                port: 0,
                id: "/run/t.sock".to_owned()
            }
        );
    }
}

#[test]
fn only_the_port_of_a_local_address_is_announced() {
    for (addr, host) in [
        ("localhost:1", ""),
        ("127.8.9.1:1", ""),
        ("[::1]:1", ""),
        ("0.0.0.0:1", ""),
        ("[::]:1", ""),
        ("db:1", "db"),
        ("[2001:db8::1]:1", "2001:db8::1"),
    ] {
        let expected = Announce {
            host: host.to_owned(),
            port: 1,
            id: addr.to_owned(),
        };
        assert_eq!(good(&[("TARANTOOL_ADDR", addr)]).announce, expected);
    }
    let announce = good(&[("ANNOUNCE_ADDR", ":3310")]).announce;
    assert_eq!(
        announce,
        Announce {
            host: String::new(),
            port: 3310,
            id: ":3310".to_owned()
        }
    );
    assert_eq!(
        good(&[("ANNOUNCE_ADDR", "127.0.0.1:1")]).announce.host,
        "127.0.0.1",
        "said is said"
    );
}

#[test]
fn addresses_that_lead_nowhere_are_errors() {
    for addr in [
        "3301",
        ":3301",
        "db",
        "db:",
        "db:0",
        "db:65536",
        "db:+1",
        "::1:3301",
        "u:p@db:3301",
        "http://db:3301",
    ] {
        assert_bad(
            &[("TARANTOOL_ADDR", addr)],
            &["TARANTOOL_ADDR", &plain::value(addr), "host:port"],
        );
    }
    for addr in ["0.0.0.0:3301", "[::]:3301", "3301", "db"] {
        assert_bad(
            &[("ANNOUNCE_ADDR", addr)],
            &["ANNOUNCE_ADDR", addr, ":port"],
        );
    }
}

#[test]
fn consul_is_addressed_as_its_cli_does() {
    for (addr, ssl, url) in [
        ("consul:8500", "", "http://consul:8500"),
        ("consul:8501", "1", "https://consul:8501"),
        ("http://consul:8500/", "true", "http://consul:8500"),
        ("https://consul", "0", "https://consul"),
        ("[::1]:8500", "", "http://[::1]:8500"),
    ] {
        assert_eq!(
            good(&[("CONSUL_HTTP_ADDR", addr), ("CONSUL_HTTP_SSL", ssl)])
                .consul
                .base_url,
            url
        );
    }
    assert_bad(
        &[("CONSUL_HTTP_ADDR", "unix:///run/consul.sock")],
        &["unix sockets are not supported"],
    );
    assert_bad(
        &[("CONSUL_HTTP_ADDR", "http://consul:8500/path")],
        &["without a path"],
    );
    assert_bad(
        &[("CONSUL_HTTP_ADDR", "ftp://consul")],
        &["allowed is host:port"],
    );
}

#[test]
fn what_belongs_together_comes_together() {
    assert_bad(
        &[("CONSUL_CLIENT_CERT", "/c")],
        &["CONSUL_CLIENT_CERT is set", "CONSUL_CLIENT_KEY"],
    );
    assert_bad(
        &[("CONSUL_CLIENT_KEY", "/k")],
        &["CONSUL_CLIENT_KEY is set", "CONSUL_CLIENT_CERT"],
    );
    assert_bad(
        &[("TARANTOOL_PASSWORD", "x")],
        &["TARANTOOL_PASSWORD is set", "TARANTOOL_USER"],
    );
}

#[test]
fn what_excludes_each_other_does_not() {
    assert_bad(
        &[("CONSUL_SERVICE_NAME", "a"), ("CONSUL_SERVICE_PREFIX", "b")],
        &["CONSUL_SERVICE_NAME and CONSUL_SERVICE_PREFIX are both set"],
    );
    assert_bad(
        &[("REPLICA_TAGS", "a"), ("SLAVE_TAGS", "a")],
        &["REPLICA_TAGS and SLAVE_TAGS"],
    );
    assert_bad(
        &[("CONSUL_HTTP_TOKEN", "a"), ("CONSUL_HTTP_TOKEN_FILE", "/a")],
        &["both set"],
    );
}

#[test]
fn tags_tell_a_master_from_a_replica_where_names_do_not() {
    let tags = [
        ("MASTER_TAGS", "zone, master"),
        ("SLAVE_TAGS", "zone,,slave"),
    ];
    let config = good(&tags);
    assert_eq!(config.catalog.master_tags, ["zone", "master"]);
    assert_eq!(config.catalog.replica_tags, ["zone", "slave"]);
    let with_name: Vec<_> = tags
        .into_iter()
        .chain([("CONSUL_SERVICE_NAME", "db")])
        .collect();
    assert_bad(
        &with_name,
        &[
            "MASTER_TAGS and SLAVE_TAGS both begin with \"zone\"",
            "resec",
        ],
    );
}

#[test]
fn keys_are_clean() {
    for (name, value) in [
        ("CONSUL_KV_PREFIX", "/tarsec"),
        ("CONSUL_KV_PREFIX", "tarsec/"),
        ("CONSUL_KV_PREFIX", "a//b"),
        ("CONSUL_LOCK_KEY", "a/../b"),
        ("CLUSTER_NAME", "a/b"),
        ("CLUSTER_NAME", "a b"),
        ("CONSUL_SERVICE_NAME", "a?b"),
    ] {
        assert_bad(&[(name, value)], &[name, value, "allowed is"]);
    }
    assert_eq!(
        good(&[("CONSUL_KV_PREFIX", "team/tarsec")])
            .consul
            .kv_prefix,
        "team/tarsec"
    );
}

#[test]
fn secrets_come_from_files_too() {
    let directory = std::env::temp_dir().join(format!("tarsec-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("secret");
    let path = file.to_str().unwrap();
    let read_from = |content: &str| {
        std::fs::write(&file, content).unwrap();
        read(&[
            ("TARANTOOL_USER", "tarsec"),
            ("TARANTOOL_PASSWORD_FILE", path),
            ("CONSUL_HTTP_TOKEN_FILE", path),
        ])
    };
    let config = read_from("hush\n").unwrap();
    assert_eq!(
        (
            config.tarantool.password.get().as_str(),
            config.consul.token.map(|token| token.get().to_string())
        ),
        ("hush", Some("hush".to_owned()))
    );
    let error = read_from("\n").unwrap_err().to_string();
    assert!(
        error.contains("TARANTOOL_PASSWORD_FILE names") && error.contains("which is empty"),
        "{error}"
    );
    std::fs::remove_dir_all(&directory).unwrap();
    let error = read(&[
        ("TARANTOOL_USER", "tarsec"),
        ("TARANTOOL_PASSWORD_FILE", path),
    ])
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("TARANTOOL_PASSWORD_FILE")
            && error.contains(path)
            && error.contains("No such file"),
        "{error}"
    );
}

#[test]
fn every_variable_of_the_table_is_read() {
    for setting in settings() {
        // No value is right for all of them, but each must be noticed: as an error or as a change.
        let name = setting.name;
        let value = match name {
            "TARANTOOL_USER"
            | "CONSUL_TLS_SERVER_NAME"
            | "CONSUL_NAMESPACE"
            | "CONSUL_HTTP_TOKEN" => "other",
            "CONSUL_CACERT" | "CONSUL_CAPATH" => "/other",
            "MASTER_TAGS" | "REPLICA_TAGS" | "SLAVE_TAGS" => "other",
            _ => "?!",
        };
        let noticed = read(&[(name, value)])
            .map_or(true, |config| config.effective() != good(&[]).effective());
        assert!(noticed, "{name}");
    }
}
