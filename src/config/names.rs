//! Variables that nobody reads: is one of them a typo of ours, or someone else's?

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::error::{ConfigError, SettingError};
use super::settings::{OPERATORS, settings};

/// A variable that begins like this is meant for us.
const PREFIXES: &[&str] = &[
    "ANNOUNCE_",
    "CONSUL_DEREGISTER_",
    "CONSUL_HTTP_",
    "CONSUL_KV_",
    "CONSUL_LOCK_",
    "CONSUL_SERVICE_",
    "CONSUL_TLS_",
    "ELECTION_",
    "FAILOVER_",
    "HEALTHCHECK_",
    "HTTP_LISTEN",
    "HTTP_TLS_",
    "HUNG_",
    "LIVENESS_",
    "MASTER_",
    "MEMBER_",
    "PEER_",
    "REPLICA_",
    "SYNC_",
    "TARANTOOL_",
    "VSHARD_",
];

/// What Consul's own tools and image read (<https://developer.hashicorp.com/consul/commands>,
/// `api/api.go`), and Tarantool's image (`files/tarantool-entrypoint.lua` in tarantool/docker):
/// an environment may be shared with them.
const NOT_OURS: &[&str] = &[
    "CONSUL_ALLOW_PRIVILEGED_PORTS",
    "CONSUL_BIND_INTERFACE",
    "CONSUL_CLIENT_INTERFACE",
    "CONSUL_GRPC_ADDR",
    "CONSUL_GRPC_CACERT",
    "CONSUL_GRPC_CAPATH",
    "CONSUL_LICENSE",
    "CONSUL_LICENSE_PATH",
    "CONSUL_LOCAL_CONFIG",
    "CONSUL_PARTITION",
    "CONSUL_TOKEN",
    "CONSUL_VERSION",
    "TARANTOOL_CHECKPOINT_INTERVAL",
    "TARANTOOL_FORCE_RECOVERY",
    "TARANTOOL_LOG_FORMAT",
    "TARANTOOL_LOG_LEVEL",
    "TARANTOOL_MEMTX_MAX_TUPLE_SIZE",
    "TARANTOOL_MEMTX_MEMORY",
    "TARANTOOL_MEMTX_MIN_TUPLE_SIZE",
    "TARANTOOL_PORT",
    "TARANTOOL_PROMETHEUS_DEFAULT_METRICS_PORT",
    "TARANTOOL_REPLICATION",
    "TARANTOOL_REPLICATION_SOURCE",
    "TARANTOOL_SLAB_ALLOC_ARENA",
    "TARANTOOL_SLAB_ALLOC_FACTOR",
    "TARANTOOL_SLAB_ALLOC_MAXIMAL",
    "TARANTOOL_SLAB_ALLOC_MINIMAL",
    "TARANTOOL_SNAPSHOT_PERIOD",
    "TARANTOOL_USER_NAME",
    "TARANTOOL_USER_PASSWORD",
    "TARANTOOL_VERSION",
    "TARANTOOL_WAL_MODE",
];

/// What Tarantool 3 reads (`TT_LISTEN`, `TT_MEMTX_MEMORY`, …): as many variables as its configuration has options.
const TARANTOOL_3: &str = "TT_";

/// Shorter names are too close to too many others.
const MIN_LEN_FOR_TYPOS: usize = 6;
/// From this length on two slips are still no accident; `MAX_SIZE` and `MAX_IDLE` are two apart.
const MIN_LEN_FOR_TWO_SLIPS: usize = 10;

/// An error for every name that is not ours but can only be meant for us.
pub(super) fn check_names(environment: &HashMap<String, String>) -> Result<(), ConfigError> {
    check_names_of(environment, |_| true)
}

/// The same for the names that the operator's commands read, and for no others: a slip in another name does not harm
/// them.
pub(super) fn check_operators_names(
    environment: &HashMap<String, String>,
) -> Result<(), ConfigError> {
    check_names_of(environment, |nearest| OPERATORS.contains(&nearest))
}

fn check_names_of(
    environment: &HashMap<String, String>,
    matters: impl Fn(&str) -> bool,
) -> Result<(), ConfigError> {
    let services: HashSet<&str> = environment
        .keys()
        .filter_map(|name| name.strip_suffix("_SERVICE_HOST"))
        .collect();
    let mut unknown: Vec<SettingError> = environment
        .keys()
        .filter(|name| !is_ours(name) && !NOT_OURS.contains(&name.as_str()))
        .filter(|name| !names_a_kubernetes_service(name, &services))
        .filter_map(|name| {
            let nearest = meant(name).filter(|nearest| matters(nearest))?;
            Some(SettingError::UnknownName {
                name: name.clone(),
                nearest,
            })
        })
        .collect();
    unknown.sort_by_key(ToString::to_string);
    ConfigError::from_all(unknown)
}

fn our_names() -> impl Iterator<Item = &'static str> {
    settings().map(|setting| setting.name)
}

fn is_ours(name: &str) -> bool {
    our_names().any(|ours| ours == name)
}

/// Kubernetes puts `X_SERVICE_HOST`, `X_SERVICE_PORT…` and `X_PORT…` into every pod, for each service of the
/// namespace; one called `consul` or `tarantool` must not stop us
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
fn names_a_kubernetes_service(name: &str, services: &HashSet<&str>) -> bool {
    services.iter().any(|service| {
        name.strip_prefix(service).is_some_and(|rest| {
            rest == "_SERVICE_HOST"
                || ["_SERVICE_PORT", "_PORT"]
                    .iter()
                    .filter_map(|kind| rest.strip_prefix(kind))
                    .any(|rest| rest.is_empty() || rest.starts_with('_'))
        })
    })
}

/// The name of ours that was meant, if one was.
fn meant(name: &str) -> Option<&'static str> {
    if name.starts_with(TARANTOOL_3) {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let nearest = our_names()
        .filter(|ours| ours.len() >= MIN_LEN_FOR_TYPOS)
        .min_by_key(|ours| {
            (
                slips(upper.as_bytes(), ours.as_bytes()),
                Reverse(common_beginning(&upper, ours)),
            )
        })?;
    let tolerated = if nearest.len() >= MIN_LEN_FOR_TWO_SLIPS {
        2
    } else {
        1
    };
    let is_typo =
        name.len() >= MIN_LEN_FOR_TYPOS && slips(upper.as_bytes(), nearest.as_bytes()) <= tolerated;
    (is_typo || PREFIXES.iter().any(|prefix| name.starts_with(prefix))).then_some(nearest)
}

fn common_beginning(one: &str, two: &str) -> usize {
    one.bytes()
        .zip(two.bytes())
        .take_while(|(a, b)| a == b)
        .count()
}

/// How many letters were missed, added, mistaken or swapped with their neighbour
/// (optimal string alignment distance).
fn slips(one: &[u8], two: &[u8]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in two.iter().enumerate() {
            let mut least = (last[j] + usize::from(a != b))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *a == two[j - 1] && one[i - 1] == *b {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_slips_of_the_hand() {
        for (one, two, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("abc", "ab", 1),
            ("", "ab", 2),
            ("abcd", "axcy", 2),
        ] {
            assert_eq!(
                slips(one.as_bytes(), two.as_bytes()),
                expected,
                "{one} {two}"
            );
        }
    }

    #[test]
    fn leaves_other_peoples_variables_alone() {
        for name in [
            "PATH",
            "HOME",
            "LOGNAME",
            "LOG_DIR",
            "LOG_FILE",
            "MAX_SIZE",
            "MAX_FILES",
            "SHARD",
            "ROLES",
            "USER",
            "HOSTNAME",
            "TT_LISTEN",
            "RUST_LOG",
            "CONSUL_SERVER_URL",
            "PRIVATE",
            "NOMAD_ALLOC_ID",
            "REPLICAS",
            "CONSUL_ADDR_HTTP",
        ] {
            assert_eq!(meant(name), None, "{name}");
        }
    }

    #[test]
    fn suggests_what_was_probably_meant() {
        for (name, nearest) in [
            ("MASTER_LEASES", "MASTER_LEASE"),
            ("PRIOIRTY", "PRIORITY"),
            ("LOG_LEVLE", "LOG_LEVEL"),
            ("CONSUL_HTP_ADRR", "CONSUL_HTTP_ADDR"),
            ("master_lease", "MASTER_LEASE"),
            ("TARANTOOL_PASWORD", "TARANTOOL_PASSWORD"),
            ("HEALTHCHECK_PERIOD", "HEALTHCHECK_INTERVAL"),
        ] {
            assert_eq!(meant(name), Some(nearest), "{name}");
        }
    }
}
