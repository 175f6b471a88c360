//! Consul with ACLs that deny by default: the documented policy is enough, and without any of its rules the agent says
//! which one it lacks, waits, and goes on as soon as it has it.

use std::time::Duration;

use tarsec_harness::{
    Agent, Consul, ConsulApi, ConsulOptions, LogLine, ReplicaSet, Result, World, eventually, json,
};

use crate::support::{SOON, world};

/// The policy that docs/DEPLOYMENT.md quotes.
const POLICY: &str = include_str!("../../docs/consul-policy.hcl");

/// Long enough for an agent that did not wait to have done something.
const A_WHILE: Duration = Duration::from_secs(2);

/// The documented policy for this world's cluster, without the rules that begin like this.
pub(crate) fn policy_without(world: &World, beginning: &str) -> String {
    let rules = for_this_world(world, POLICY);
    rules
        .lines()
        .filter(|line| beginning.is_empty() || !line.starts_with(beginning))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The service names that the documented policies are for.
pub(crate) const NAMING: (&str, &str) = ("CONSUL_SERVICE_PREFIX", "tarantool-{cluster}");
/// How the harness calls the node of its one Consul.
const NODE: &str = "consul0";

/// A documented policy with this world's cluster and node in it.
pub(crate) fn for_this_world(world: &World, policy: &str) -> String {
    let cluster = world.cluster();
    let rules = policy
        .replace("tarsec/shop/", &format!("tarsec/{cluster}/"))
        .replace("\"tarantool-shop-", &format!("\"tarantool-{cluster}-"))
        .replace("\"db-1\"", &format!("\"{NODE}\""));
    assert!(
        !rules.contains("shop/") && !rules.contains("\"db-1"),
        "{rules}"
    );
    rules
}

/// Changes the rules of a policy that is there.
async fn set_rules(api: &ConsulApi, name: &str, rules: &str) -> Result<()> {
    let policies = api.get("/v1/acl/policies").await?;
    let own = policies
        .as_array()
        .into_iter()
        .flatten()
        .find(|policy| policy["Name"] == name);
    let id = own
        .and_then(|policy| policy["ID"].as_str())
        .unwrap_or_else(|| panic!("no policy {name}"));
    let body = json!({"Name": name, "Rules": rules}).to_string();
    api.call("PUT", &format!("/v1/acl/policy/{id}"), Some(body))
        .await
        .map(|_| ())
}

pub(crate) async fn strict_consul(world: &World) -> Result<Consul> {
    let acl = acl_by_default_deny(true);
    world
        .consul_with(ConsulOptions::default().acl().config("acl", acl))
        .await
}

/// Without `enable_key_list_policy` Consul leaves keys out of lists rather than deny the list.
pub(crate) fn acl_by_default_deny(lists_are_denied: bool) -> tarsec_harness::Value {
    json!({
        "enabled": true,
        "default_policy": "deny",
        "enable_key_list_policy": lists_are_denied,
        "tokens": {"master": MANAGEMENT, "agent": MANAGEMENT},
    })
}

/// The management token of the harness's Consul.
const MANAGEMENT: &str = "7a3c1f52-0d4e-4c3b-9a55-6f1e2d3c4b5a";

async fn wait_for(agent: &Agent, message: &str, field: &str, words: &str) -> Result<LogLine> {
    let what = format!("{message:?} with {words:?}");
    agent
        .wait_for_log(SOON, &what, 0, |line| {
            line.message() == message
                && line.field(field).as_str().is_some_and(|text| text == words)
        })
        .await
}

/// The agent runs, nothing is writable, the reason stays and the log is short.
async fn assert_waits(agent: &Agent, set: &ReplicaSet, reason: &str) -> Result<()> {
    let before = agent.logs()?.len();
    let started = std::time::Instant::now();
    while started.elapsed() < A_WHILE {
        assert!(agent.process().is_running(), "the agent has ended");
        assert_eq!(set.writable().await, [0_usize; 0]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let logs = agent.logs()?;
    let said: Vec<&LogLine> = logs
        .iter()
        .skip(before)
        .filter(|line| !is_about_silence(line))
        .collect();
    let changed = said
        .iter()
        .filter(|line| line.message() == "reason changed");
    // Back from a moment's silence it is the same reason again.
    assert!(
        changed.clone().all(|line| line.field("to") == reason),
        "{said:#?}"
    );
    assert!(said.len() - changed.count() <= 4, "{said:#?}");
    Ok(())
}

/// On a busy machine an instance may be late with an answer; that is said, too, and is not what is being waited for.
fn is_about_silence(line: &LogLine) -> bool {
    let to = line.field("to").as_str().unwrap_or_default();
    matches!(
        line.message(),
        "the instance does not answer" | "the instance answers again"
    ) || to.ends_with("cannot be it: the instance does not answer")
}

/// One instance whose agent lacks a rule, says `sentence` (`KEY` stands for the replica set's keys), and is given it.
async fn lacking(name: &str, rules: impl Fn(&World) -> String, sentence: &str) {
    let story = async |world: &World| {
        let consul = strict_consul(world).await?;
        let set = world.replica_set(1).await?;
        let api = consul.api()?;
        let token = api.create_token("agent", &rules(world)).await?;
        let agent = world
            .agent(&set[0], &consul)?
            .env(NAMING.0, NAMING.1)
            .env("CONSUL_HTTP_TOKEN", &token.secret);
        let agent = agent.start().await?;
        let keys = format!("tarsec/{}/{}", world.cluster(), set.uuid());
        let expected = format!("waiting for Consul: {}", sentence.replace("KEY", &keys));
        wait_for(&agent, "reason changed", "to", &expected).await?;
        assert_waits(&agent, &set, &expected).await?;
        set_rules(api, "agent", &policy_without(world, "")).await?;
        set.wait_for_master(SOON).await?;
        Ok(())
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn a_token_without_any_right_to_the_keys_is_told_the_rule() {
    lacking(
        "acl-key",
        |world| policy_without(world, "key_prefix"),
        "could not watch lock KEY/leader: consul denies it (403: Permission denied), the token lacks a right: grant it \
         key \"KEY/leader\" { policy = \"write\" }",
    )
    .await;
}

#[tokio::test]
async fn a_token_that_may_only_read_the_keys_is_told_the_rule() {
    let read_only = |world: &World| {
        let rules = policy_without(world, "");
        let (key, rest) = rules
            .split_once("{ policy = \"write\" }")
            .expect("the first rule");
        let list = "{ policy = \"list\" }";
        format!("{key}{list}{rest}")
    };
    lacking(
        "acl-key-read",
        read_only,
        "could not create lock KEY/leader: consul denies it (409: Permission denied), the token lacks a right: grant it \
         key \"KEY/leader\" { policy = \"write\" }",
    )
    .await;
}

#[tokio::test]
async fn a_token_without_a_right_to_sessions_is_told_the_rule() {
    lacking(
        "acl-session",
        |world| policy_without(world, "session"),
        "could not create session tarsec: consul denies it (403: Permission denied), the token lacks a right: grant it \
         session \"NODE\" { policy = \"write\" }, where NODE is the name of the node of that Consul agent",
    )
    .await;
}

#[tokio::test]
async fn a_token_without_a_right_to_services_is_told_the_rule_and_the_master_serves_all_the_same() {
    let story = async |world: &World| {
        let consul = strict_consul(world).await?;
        let set = world.replica_set(1).await?;
        let api = consul.api()?;
        let token = api
            .create_token("agent", &policy_without(world, "service "))
            .await?;
        let agent = world
            .agent(&set[0], &consul)?
            .env(NAMING.0, NAMING.1)
            .env("CONSUL_HTTP_TOKEN", &token.secret);
        let agent = agent.start().await?;
        set.wait_for_master(SOON).await?;
        let sentence = |role: &str| {
            format!(
                "could not register service tarantool-{cluster}@{}@{}: consul denies it (403: Permission denied: Missing \
                 service:write on tarantool-{cluster}-{role}), the token lacks a right: grant it service \
                 \"tarantool-{cluster}-{role}\" {{ policy = \"write\" }}",
                set[0].addr(),
                set[0].uuid(),
                cluster = world.cluster()
            )
        };
        wait_for(
            &agent,
            "could not tell the catalog",
            "why",
            &sentence("master"),
        )
        .await?;
        set.stays_master(0, A_WHILE).await?;
        assert_eq!(
            agent.usr2().await?["state"]["catalog"]["fault"],
            sentence("master")
        );
        assert_eq!(api.service(&master_name(world)).await?, []);
        set_rules(api, "agent", &policy_without(world, "")).await?;
        eventually(SOON, "the master in the catalog", async || {
            match api.service(&master_name(world)).await.as_deref() {
                Ok([entry]) if entry.status == "passing" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    };
    world().story("acl-service", story).await;
}

#[tokio::test]
async fn no_token_is_told_apart_from_one_without_a_right() {
    let story = async |world: &World| {
        let consul = strict_consul(world).await?;
        let set = world.replica_set(1).await?;
        let agent = world
            .agent(&set[0], &consul)?
            .without_env("CONSUL_HTTP_TOKEN");
        let agent = agent.start().await?;
        let key = format!("tarsec/{}/{}/leader", world.cluster(), set.uuid());
        let expected = format!(
            "waiting for Consul: could not watch lock {key}: consul denies it (403: Permission denied), no token is set: \
             set CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE to one with key \"{key}\" {{ policy = \"write\" }}"
        );
        wait_for(&agent, "reason changed", "to", &expected).await?;
        assert_waits(&agent, &set, &expected).await
    };
    world().story("acl-no-token", story).await;
}

#[tokio::test]
async fn a_token_that_consul_does_not_know_is_waited_for() {
    let story = async |world: &World| {
        let consul = strict_consul(world).await?;
        let set = world.replica_set(1).await?;
        let secret = "00000000-0000-4000-8000-00000000dead";
        let agent = world
            .agent(&set[0], &consul)?
            .env("CONSUL_HTTP_TOKEN", secret)
            .start()
            .await?;
        let expected = format!(
            "waiting for Consul: could not watch lock tarsec/{}/{}/leader: consul denies it (403: ACL not found), it \
             does not know the token of CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE: set one that it knows",
            world.cluster(),
            set.uuid()
        );
        wait_for(&agent, "reason changed", "to", &expected).await?;
        assert_waits(&agent, &set, &expected).await?;
        let api = consul.api()?;
        api.create_token("agent", &policy_without(world, ""))
            .await?;
        let token = json!({"SecretID": secret, "Policies": [{"Name": "agent"}]}).to_string();
        api.call("PUT", "/v1/acl/token", Some(token)).await?;
        set.wait_for_master(SOON).await?;
        Ok(())
    };
    world().story("acl-bad-token", story).await;
}

/// By which name masters are found.
fn master_name(world: &World) -> String {
    format!("tarantool-{}-master", world.cluster())
}

/// How often the agent has said that it was denied something.
fn denials(agent: &Agent) -> Result<usize> {
    let denied = |line: &&LogLine| line.text.contains("consul denies it");
    Ok(agent.logs()?.iter().filter(denied).count())
}

#[tokio::test]
async fn the_documented_policy_carries_a_failover_and_a_master_without_it_is_fenced() {
    let story = async |world: &World| {
        let consul = strict_consul(world).await?;
        let set = world.replica_set(2).await?;
        let api = consul.api()?;
        let token = api
            .create_token("agent", &policy_without(world, ""))
            .await?;
        let file = world.dir().join("token");
        std::fs::write(&file, format!("{}\n", token.secret)).expect("the world can be written to");
        let agents = world
            .agents_with(&set, &consul, |_, agent| {
                agent
                    .env("FAILSAFE", "off")
                    .env(NAMING.0, NAMING.1)
                    .without_env("CONSUL_HTTP_TOKEN")
                    .env("CONSUL_HTTP_TOKEN_FILE", &file.display().to_string())
            })
            .await?;
        let writers = set.writers().start();
        let first = set.wait_for_master(SOON).await?;
        writers.wait_for_writes(50, SOON).await?;
        set[first].kill().await?;
        let second = set.wait_for_new_master(first, SOON).await?;
        set[first].start().await?;
        set.wait_for_mesh(SOON).await?;

        for agent in &agents {
            assert_eq!(denials(agent)?, 0, "{}", agent.process().tail(20));
        }
        // Nothing may be done any more: the lease ends, and with the rules the same master goes on.
        set_rules(api, "agent", "").await?;
        set.wait_for_no_master(SOON).await?;
        set_rules(api, "agent", &policy_without(world, "")).await?;
        assert_eq!(set.wait_for_master(SOON).await?, second);
        let denied = denials(&agents[second])?;
        assert!(denied > 0);

        assert_eq!(agents[second].term(SOON).await?.code(), Some(0));
        set.wait_for_new_master(second, SOON).await?;
        assert_eq!(denials(&agents[second])?, denied, "the farewell was denied");
        let left = api.service(&master_name(world)).await?;
        let port = |entry: &tarsec_harness::ServiceEntry| {
            set[second].addr().ends_with(&entry.port.to_string())
        };
        assert!(!left.iter().any(port), "{left:?}");
        writers.stop().await?.judge().assert_safe();
        let page = include_str!("../../docs/DEPLOYMENT.md");
        assert!(
            page.contains(POLICY.trim()),
            "the policy in docs/DEPLOYMENT.md is not docs/consul-policy.hcl"
        );
        Ok(())
    };
    world().story("acl-failover", story).await;
}
