//! The names under which instances stand in Consul's catalog.

use super::parse;

/// Stands for `CLUSTER_NAME` in a service's name.
const CLUSTER: &str = "{cluster}";
/// Stands for the replica set's UUID.
const REPLICASET: &str = "{replicaset}";
/// What DNS allows between two dots (RFC 1035, 2.3.4).
const DNS_LABEL_MAX: usize = 63;
/// The longest that a prefix gets behind it.
const LONGEST_SUFFIX: &str = "-replica";

/// A service's name or its beginning, perhaps with [`CLUSTER`] and [`REPLICASET`] in it.
pub(super) fn template(text: &str) -> Result<String, String> {
    let plain = text.replace(CLUSTER, "c").replace(REPLICASET, "r");
    match parse::name(&plain) {
        Ok(_) => Ok(text.to_owned()),
        Err(allowed) => Err(format!("{allowed}, {CLUSTER} and {REPLICASET}")),
    }
}

/// Why DNS cannot find a name that cluster and replica set are put into, if so.
pub(super) fn too_long(template: &str, cluster: &str) -> Option<String> {
    let uuid = "0".repeat(36);
    let name = expanded(template, cluster, Some(&uuid));
    let is_too_long = template.contains('{') && name.len() + LONGEST_SUFFIX.len() > DNS_LABEL_MAX;
    is_too_long.then(|| {
        let most = DNS_LABEL_MAX - LONGEST_SUFFIX.len();
        format!("at most {most} characters with {CLUSTER} and {REPLICASET} put in, or DNS does not find it")
    })
}

/// The template with cluster and replica set put in, as far as DNS knows their characters. Without a replica set its place
/// goes, and the hyphen before it.
pub(crate) fn expanded(template: &str, cluster: &str, replicaset: Option<&str>) -> String {
    let name = template.replace(CLUSTER, &dns_label(cluster));
    match replicaset {
        Some(uuid) => name.replace(REPLICASET, &dns_label(uuid)),
        None => {
            let behind = format!("-{REPLICASET}");
            name.replace(&behind, "").replace(REPLICASET, "")
        }
    }
}

/// With a hyphen for each character that DNS does not know in a label (RFC 1123, 2.1).
pub(crate) fn dns_label(text: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    text.chars().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "5f6a3c1e-0000-4000-8000-000000000001";

    #[test]
    fn cluster_and_replica_set_are_put_in_where_the_name_says_so() {
        let both = "db-{cluster}-{replicaset}";
        assert_eq!(
            expanded(both, "shop", Some(UUID)),
            format!("db-shop-{UUID}")
        );
        assert_eq!(expanded(both, "shop", None), "db-shop");
        assert_eq!(expanded("{replicaset}-db", "shop", None), "-db");
        assert_eq!(expanded("tarantool", "shop", Some(UUID)), "tarantool");
    }

    #[test]
    fn what_dns_does_not_know_becomes_a_hyphen_and_the_operators_own_words_stay() {
        assert_eq!(
            expanded("my_db-{cluster}", "eu.shop_1", None),
            "my_db-eu-shop-1"
        );
    }

    #[test]
    fn a_template_is_a_name_with_known_places() {
        for good in ["tarantool", "db-{cluster}", "{cluster}.{replicaset}"] {
            assert_eq!(template(good), Ok(good.to_owned()));
        }
        for bad in ["db-{clustre}", "db {cluster}", "{", "", "a/{cluster}"] {
            let allowed = template(bad).expect_err(bad);
            assert!(allowed.contains("{cluster} and {replicaset}"), "{allowed}");
        }
    }

    #[test]
    fn a_name_that_dns_cannot_find_is_told() {
        assert_eq!(too_long("db-{cluster}-{replicaset}", "shop"), None);
        assert!(too_long("tarantool-{cluster}-{replicaset}", "the-whole-shop").is_some());
        assert_eq!(too_long(&"x".repeat(64), "shop"), None, "as ever");
    }
}
