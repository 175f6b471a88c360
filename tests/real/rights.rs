//! The documented policies, right by right: what each is needed for works, and what it must not do is refused. The table
//! that comes of it stands in docs/DEPLOYMENT.md.

use tarsec_harness::{Consul, ConsulApi, ConsulOptions, Error, Result, World, json};

use crate::support::world;
use crate::surroundings_acl::{acl_by_default_deny, for_this_world};

const AGENT: &str = include_str!("../../docs/consul-policy.hcl");
const STATUS: &str = include_str!("../../docs/consul-policy-status.hcl");
const OPERATOR: &str = include_str!("../../docs/consul-policy-operator.hcl");
const PAGE: &str = include_str!("../../docs/DEPLOYMENT.md");

/// The replica set in the policies, whose own cluster they call shop. The other cluster is called bank.
const SET: &str = "5f6a3c1e-0000-4000-8000-000000000001";

/// Something that is tried with a token, in words for the table.
struct Try {
    what: &'static str,
    method: &'static str,
    path: String,
    body: String,
}

fn try_to(what: &'static str, method: &'static str, path: impl Into<String>, body: &str) -> Try {
    Try {
        what,
        method,
        path: path.into(),
        body: body.to_owned(),
    }
}

/// A transaction of one step.
fn step(what: &'static str, operation: &tarsec_harness::Value) -> Try {
    let body = json!([{"KV": operation}]).to_string();
    try_to(what, "PUT", "/v1/txn", &body)
}

/// `None`: it was done. Else Consul's words of denial.
async fn denial(api: &ConsulApi, of: &Try) -> Option<String> {
    let body = (!of.body.is_empty()).then(|| of.body.clone());
    match api.call(of.method, &of.path, body).await {
        Ok(_) => None,
        Err(Error::HttpStatus { body, .. }) if body.contains("ermission denied") => Some(body),
        Err(error) => panic!("{} {}: {error}", of.method, of.path),
    }
}

/// A line of the table, once all of it was tried.
async fn row(token: &ConsulApi, rule: &str, works: &[Try], refused: &[Try]) -> String {
    for it in works {
        let denied = denial(token, it).await;
        assert_eq!(denied, None, "{rule} is to allow: {}", it.what);
    }
    for it in refused {
        assert!(
            denial(token, it).await.is_some(),
            "{rule} is not to allow: {}",
            it.what
        );
    }
    let words = |of: &[Try]| of.iter().map(|it| it.what).collect::<Vec<_>>().join("; ");
    format!("| `{rule}` | {} | {} |", words(works), words(refused))
}

/// The lines that make a rule of the policy, in the documents' names.
fn assert_has_rule(policy: &str, rule: &str) {
    assert!(
        policy.lines().any(|line| line == rule),
        "{rule} is not in\n{policy}"
    );
}

/// Another cluster's and other applications' things, put there by their owners.
struct Others {
    /// Of an agent on another node.
    foreign_session: String,
    /// Holds the lock of our replica set.
    own_session: String,
}

async fn new_session(api: &ConsulApi) -> Result<String> {
    let body = json!({"TTL": "600s", "LockDelay": "0s", "NodeChecks": [], "Checks": []});
    let made = api
        .call("PUT", "/v1/session/create", Some(body.to_string()))
        .await?;
    Ok(made["ID"].as_str().expect("a session").to_owned())
}

async fn others(consul: &Consul, cluster: &str) -> Result<Others> {
    let root = consul.api()?;
    for service in ["tarantool-bank-master", "web"] {
        let check =
            json!({"CheckID": format!("service:{service}"), "TTL": "600s", "Status": "passing"});
        let body = json!({"ID": service, "Name": service, "Check": check}).to_string();
        root.call("PUT", "/v1/agent/service/register", Some(body))
            .await?;
    }
    for key in [
        "tarsec/bank/x/leader".to_owned(),
        format!("tarsec/{cluster}ping/x/leader"),
    ] {
        root.kv_put(&key, "{}").await?;
    }
    for key in ["leader", "members/x", "history/1"] {
        root.kv_put(&format!("tarsec/{cluster}/{SET}/{key}"), "{}")
            .await?;
    }
    Ok(Others {
        foreign_session: new_session(consul.servers()[1].api()).await?,
        own_session: new_session(consul.servers()[0].api()).await?,
    })
}

async fn agents_rows(world: &World, api: &ConsulApi, others: &Others) -> Vec<String> {
    let cluster = world.cluster();
    let lock = format!("tarsec/{cluster}/{SET}/leader");
    let value = "e30=";
    let (own, foreign) = (&others.own_session, &others.foreign_session);
    let take = json!({"Verb": "lock", "Key": lock, "Value": value, "Session": foreign});
    let end = json!({"Verb": "unlock", "Key": lock, "Value": value, "Session": foreign});
    let bank =
        json!({"Verb": "lock", "Key": "tarsec/bank/x/leader", "Value": value, "Session": own});
    let list = format!("/v1/kv/tarsec/{cluster}/{SET}/members/?keys");
    let keys = row(
        api,
        "key_prefix \"tarsec/shop/\" { policy = \"write\" }",
        &[
            step("every step at the lock", &take),
            step(
                "a take-over of a lock that a session of another node holds",
                &end,
            ),
            try_to("the names of the members' keys", "GET", list, ""),
            try_to(
                "members, ballots, orders, history",
                "PUT",
                format!("/v1/kv/tarsec/{cluster}/{SET}/members/x"),
                "{}",
            ),
        ],
        &[
            step("the lock of cluster bank", &bank),
            try_to("its keys", "PUT", "/v1/kv/tarsec/bank/x/members/x", "{}"),
            try_to("to read them", "GET", "/v1/kv/tarsec/bank/x/leader", ""),
            try_to(
                "those of a cluster whose name begins with shop",
                "PUT",
                format!("/v1/kv/tarsec/{cluster}ping/x/leader"),
                "{}",
            ),
            try_to("to remove all keys", "DELETE", "/v1/kv/tarsec/?recurse", ""),
        ],
    )
    .await;
    let session = json!({"TTL": "15s", "LockDelay": "0s", "NodeChecks": [], "Checks": []});
    let elsewhere = json!({"TTL": "15s", "NodeChecks": [], "Checks": [], "Node": "consul1"});
    let sessions = row(
        api,
        "session \"db-1\" { policy = \"write\" }",
        &[
            try_to(
                "to create its session",
                "PUT",
                "/v1/session/create",
                &session.to_string(),
            ),
            try_to("to renew it", "PUT", format!("/v1/session/renew/{own}"), ""),
            try_to(
                "to end it, and any other session of node db-1",
                "PUT",
                format!("/v1/session/destroy/{own}"),
                "",
            ),
        ],
        &[
            try_to(
                "to end a session of another node",
                "PUT",
                format!("/v1/session/destroy/{foreign}"),
                "",
            ),
            try_to(
                "to renew one",
                "PUT",
                format!("/v1/session/renew/{foreign}"),
                "",
            ),
            try_to(
                "to create one",
                "PUT",
                "/v1/session/create",
                &elsewhere.to_string(),
            ),
        ],
    )
    .await;
    vec![
        keys,
        sessions,
        services_row(cluster, api).await,
        nothing_row(api).await,
    ]
}

async fn services_row(cluster: &str, api: &ConsulApi) -> String {
    let of = |id: &str, name: &str| {
        json!({"ID": id, "Name": name, "Check": {"CheckID": format!("service:{id}"), "TTL": "600s"}}).to_string()
    };
    let own = |role: &str| format!("tarantool-{cluster}-{role}");
    let register = "/v1/agent/service/register";
    row(
        api,
        "service \"tarantool-shop-master\" { policy = \"write\" }",
        &[
            try_to(
                "to register its service",
                "PUT",
                register,
                &of("own", &own("master")),
            ),
            try_to(
                "under its other role",
                "PUT",
                register,
                &of("own", &own("replica")),
            ),
            try_to(
                "to set its check",
                "PUT",
                "/v1/agent/check/update/service:own",
                &json!({"Status": "passing"}).to_string(),
            ),
            try_to(
                "to deregister it",
                "PUT",
                "/v1/agent/service/deregister/own",
                "",
            ),
        ],
        &[
            try_to(
                "to register a service of cluster bank",
                "PUT",
                register,
                &of("another", "tarantool-bank-master"),
            ),
            try_to(
                "to register its own over bank's",
                "PUT",
                register,
                &of("tarantool-bank-master", &own("master")),
            ),
            try_to(
                "to set bank's check",
                "PUT",
                "/v1/agent/check/update/service:tarantool-bank-master",
                &json!({"Status": "critical"}).to_string(),
            ),
            try_to(
                "to remove bank's check",
                "PUT",
                "/v1/agent/check/deregister/service:tarantool-bank-master",
                "",
            ),
            try_to(
                "to deregister bank's service",
                "PUT",
                "/v1/agent/service/deregister/tarantool-bank-master",
                "",
            ),
            try_to(
                "another application's",
                "PUT",
                "/v1/agent/service/deregister/web",
                "",
            ),
            try_to(
                "a check of the node",
                "PUT",
                "/v1/agent/check/register",
                &json!({"Name": "node", "TTL": "10s"}).to_string(),
            ),
        ],
    )
    .await
}

/// What no rule of the policy speaks of.
async fn nothing_row(api: &ConsulApi) -> String {
    let node = json!({"Node": "db-9", "Address": "192.0.2.1"}).to_string();
    let away = json!({"Node": "consul1"}).to_string();
    let service = json!({"Node": "consul0", "ServiceID": "web"}).to_string();
    row(
        api,
        "agent, node, operator, acl, event, query: nothing",
        &[],
        &[
            try_to("to register a node", "PUT", "/v1/catalog/register", &node),
            try_to("to remove a node", "PUT", "/v1/catalog/deregister", &away),
            try_to(
                "to remove a service past its agent",
                "PUT",
                "/v1/catalog/deregister",
                &service,
            ),
            try_to(
                "maintenance of the Consul agent",
                "PUT",
                "/v1/agent/maintenance?enable=true",
                "",
            ),
            try_to("to stop it", "PUT", "/v1/agent/leave", ""),
            try_to(
                "to drop a member",
                "PUT",
                "/v1/agent/force-leave/consul1",
                "",
            ),
            try_to("its configuration", "GET", "/v1/agent/self", ""),
            try_to("tokens", "GET", "/v1/acl/tokens", ""),
            try_to("events", "PUT", "/v1/event/fire/deploy", ""),
            try_to("a snapshot", "GET", "/v1/snapshot", ""),
        ],
    )
    .await
}

async fn readers_row(world: &World, api: &ConsulApi) -> String {
    let cluster = world.cluster();
    row(
        api,
        "key_prefix \"tarsec/shop/\" { policy = \"list\" }",
        &[try_to(
            "`tarsec status` and `history`",
            "GET",
            format!("/v1/kv/tarsec/{cluster}/?recurse"),
            "",
        )],
        &[
            try_to(
                "to write any key",
                "PUT",
                format!("/v1/kv/tarsec/{cluster}/pause"),
                "{}",
            ),
            try_to(
                "to read those of bank",
                "GET",
                "/v1/kv/tarsec/bank/x/leader",
                "",
            ),
            try_to("a session", "PUT", "/v1/session/create", "{}"),
            try_to(
                "to deregister a service",
                "PUT",
                "/v1/agent/service/deregister/web",
                "",
            ),
        ],
    )
    .await
}

async fn operators_rows(world: &World, api: &ConsulApi) -> Vec<String> {
    let base = format!("/v1/kv/tarsec/{}", world.cluster());
    let pause = row(
        api,
        "key \"tarsec/shop/…/pause\" { policy = \"write\" }",
        &[
            try_to("`tarsec pause`", "PUT", format!("{base}/{SET}/pause"), "{}"),
            try_to(
                "`tarsec resume`",
                "DELETE",
                format!("{base}/{SET}/pause"),
                "",
            ),
            try_to("the cluster's", "PUT", format!("{base}/pause"), "{}"),
        ],
        &[
            try_to(
                "that of a replica set without the rule",
                "PUT",
                format!("{base}/x/pause"),
                "{}",
            ),
            try_to("bank's", "PUT", "/v1/kv/tarsec/bank/pause", "{}"),
        ],
    )
    .await;
    let switchover = row(
        api,
        "key \"tarsec/shop/…/switchover\" { policy = \"write\" }",
        &[try_to(
            "`tarsec switchover`",
            "PUT",
            format!("{base}/{SET}/switchover"),
            "{}",
        )],
        &[
            try_to("the lock", "PUT", format!("{base}/{SET}/leader"), "{}"),
            try_to(
                "a member's key",
                "PUT",
                format!("{base}/{SET}/members/x"),
                "{}",
            ),
            try_to(
                "the history",
                "PUT",
                format!("{base}/{SET}/history/1"),
                "{}",
            ),
            try_to("a session", "PUT", "/v1/session/create", "{}"),
        ],
    )
    .await;
    vec![pause, switchover]
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "the table, for the page that has it")]
async fn each_right_allows_what_it_is_for_and_nothing_else() {
    world()
        .story("rights", async |world| {
            let options = ConsulOptions::default().servers(3).acl();
            let consul = world
                .consul_with(options.config("acl", acl_by_default_deny(false)))
                .await?;
            let others = others(&consul, world.cluster()).await?;
            let root = consul.servers()[0].api();
            let mut tokens = Vec::new();
            for (name, policy) in [("agent", AGENT), ("status", STATUS), ("operator", OPERATOR)] {
                let rules = for_this_world(world, policy);
                let token = root.create_token(name, &rules).await?;
                tokens.push(root.with_token(&token.secret));
            }
            let [agent, status, operator] = &tokens[..] else {
                unreachable!("three policies");
            };
            for role in ["master", "replica", "router"] {
                let rule = |policy| {
                    format!("service \"tarantool-shop-{role}\" {{ policy = \"{policy}\" }}")
                };
                assert_has_rule(AGENT, &rule("write"));
                assert_has_rule(STATUS, &rule("read"));
            }
            assert_has_rule(AGENT, "key_prefix \"tarsec/shop/\" { policy = \"write\" }");
            assert_has_rule(AGENT, "session \"db-1\" { policy = \"write\" }");
            let tables = [
                ("agent", agents_rows(world, agent, &others).await),
                ("status", vec![readers_row(world, status).await]),
                ("operator", operators_rows(world, operator).await),
            ];
            let mut missing = Vec::new();
            for (policy, rows) in &tables {
                for row in rows {
                    let row = format!("| {policy} {row}");
                    println!("{row}");
                    if !PAGE.contains(&row) {
                        missing.push(row);
                    }
                }
            }
            let missing = missing.join("\n");
            assert!(missing.is_empty(), "not in docs/DEPLOYMENT.md:\n{missing}");
            Ok(())
        })
        .await;
}
