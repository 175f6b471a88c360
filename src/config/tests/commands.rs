//! What the operator's commands read of the agents' settings.

use super::super::*;

fn operators(variables: &[(&str, &str)]) -> Result<OperatorConfig, ConfigError> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    OperatorConfig::from_iter(variables.iter().map(owned))
}

#[test]
fn the_commands_read_what_the_agents_read() {
    let config = operators(&[
        ("CLUSTER_NAME", "shop"),
        ("CONSUL_HTTP_ADDR", "consul:8501"),
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_KV_PREFIX", "ha/tarsec"),
        ("CONSUL_LOCK_KEY", "locks/shop"),
        ("LOG_LEVEL", "debug"),
    ])
    .unwrap();
    assert_eq!(config.cluster, "shop");
    assert_eq!(config.consul.base_url, "https://consul:8501");
    assert_eq!(config.consul.kv_prefix, "ha/tarsec");
    assert_eq!(config.consul.lock_key.as_deref(), Some("locks/shop"));
    assert_eq!(config.log.level, tracing::Level::DEBUG);
}

#[test]
fn the_commands_do_not_mind_what_is_the_agents_alone() {
    let config = operators(&[
        ("TARANTOOL_ADDR", "no address"),
        ("TARANTOOL_PASSWORD_FILE", "/does/not/exist"),
        ("MASTER_LEASE", "an hour"),
        ("MASTER_LEASES", "1h"),
        ("CONSUL_LOCK_TTL", "1s"),
        ("CONSUL_LOCK_MONITOR_RETRIES", "never"),
        ("CONSUL_SERVICE_NAME", "a"),
        ("CONSUL_SERVICE_PREFIX", "b"),
        ("VSHARD", "auto"),
        ("PRIORITY", "first"),
    ]);
    assert_eq!(config.map(|config| config.cluster).unwrap(), "default");
}

#[test]
fn the_commands_mind_slips_in_what_they_read() {
    for (name, value) in [
        ("CLUSTER_NAEM", "shop"),
        ("CONSUL_HTTP_ADRR", "consul:8500"),
        ("CLUSTER_NAME", "a/b"),
        ("CONSUL_HTTP_ADDR", "unix:///socket"),
    ] {
        let error = operators(&[(name, value)]).map(|_| ()).expect_err(name);
        assert!(error.to_string().starts_with(name), "{error}");
    }
}
