//! Basic authentication and namespaces: what every single request to Consul carries, seen from a gate in front of it.

use tarsec_harness::{Agent, Result, World};

use crate::support::{SOON, world};
use crate::surroundings_gate::{Asked, Gate, Rules};

/// One of each call that an agent makes until it is master and when it leaves.
const CALLS: [&str; 8] = [
    "GET /v1/kv/KEYS/leader?consistent",
    "GET /v1/kv/KEYS/members/",
    "PUT /v1/session/create",
    "PUT /v1/session/destroy/",
    "PUT /v1/txn",
    "PUT /v1/agent/service/register",
    "PUT /v1/agent/check/update/",
    "PUT /v1/agent/service/deregister/",
];

/// From the first request through mastership to the farewell; every call has come by.
async fn assert_whole_life(
    world: &World,
    agent: &Agent,
    gate: &Gate,
    keys: &str,
) -> Result<Vec<Asked>> {
    agent
        .wait_for_log(SOON, "a promotion", 0, |line| line.message() == "promoted")
        .await?;
    assert_eq!(
        agent.term(SOON).await?.code(),
        Some(0),
        "{}",
        world.explain()
    );
    let asked = gate.asked();
    for call in CALLS {
        let call = call.replace("KEYS", keys);
        assert!(
            asked.iter().any(|asked| asked.line.starts_with(&call)),
            "no {call} in {asked:#?}"
        );
    }
    Ok(asked)
}

async fn wait_for_reason(agent: &Agent, expected: &str) -> Result<()> {
    let what = format!("the reason {expected:?}");
    let fits = |line: &tarsec_harness::LogLine| line.field("to") == expected;
    agent.wait_for_log(SOON, &what, 0, fits).await.map(|_| ())
}

#[tokio::test]
async fn every_call_carries_the_user_and_password_and_a_wrong_one_is_named() {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let set = world.replica_set(1).await?;
        let keys = format!("tarsec/{}/{}", world.cluster(), set.uuid());
        // base64 of "agent:pass:word".
        let expected = "Basic YWdlbnQ6cGFzczp3b3Jk".to_owned();
        let rules = Rules {
            authorization: Some(expected.clone()),
            ..Rules::default()
        };
        let gate = Gate::start(world, &consul.agent_addr(0), rules).await?;
        for (name, auth, found) in [
            ("without", "", "is not set"),
            ("wrong", "agent:guess", "is wrong"),
        ] {
            let agent = world.agent(&set[0], &consul)?.name(name);
            let agent = agent
                .env("CONSUL_HTTP_ADDR", &gate.addr)
                .env("CONSUL_HTTP_AUTH", auth);
            let agent = agent.start().await?;
            let reason = format!(
                "waiting for Consul: could not watch lock {keys}/leader: consul denies it (401: Who goes there?), \
                 CONSUL_HTTP_AUTH {found}: it must be the user:password that is asked for there"
            );
            wait_for_reason(&agent, &reason).await?;
            assert_eq!(set.writable().await, [0_usize; 0]);
            assert_eq!(agent.term(SOON).await?.code(), Some(0));
        }
        let gate = Gate::start(
            world,
            &consul.agent_addr(0),
            Rules {
                authorization: Some(expected.clone()),
                ..Rules::default()
            },
        )
        .await?;
        let agent = world
            .agent(&set[0], &consul)?
            .env("CONSUL_HTTP_ADDR", &gate.addr);
        let agent = agent
            .env("CONSUL_HTTP_AUTH", "agent:pass:word")
            .start()
            .await?;
        let asked = assert_whole_life(world, &agent, &gate, &keys).await?;
        for asked in asked {
            assert_eq!(
                asked.authorization.as_ref(),
                Some(&expected),
                "{}",
                asked.line
            );
        }
        Ok(())
    };
    world().story("basic-auth", story).await;
}

/// Consul without the enterprise licence refuses a namespace, so here a gate in between hides it from Consul.
#[tokio::test]
async fn every_call_names_the_namespace() {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let set = world.replica_set(1).await?;
        let keys = format!("tarsec/{}/{}", world.cluster(), set.uuid());
        let rules = Rules {
            swallowed: Some("ns=team".to_owned()),
            ..Rules::default()
        };
        let gate = Gate::start(world, &consul.agent_addr(0), rules).await?;
        let agent = world
            .agent(&set[0], &consul)?
            .env("CONSUL_HTTP_ADDR", &gate.addr);
        let agent = agent.env("CONSUL_NAMESPACE", "team").start().await?;
        let asked = assert_whole_life(world, &agent, &gate, &keys).await?;
        for asked in asked {
            assert!(
                asked.line.contains("?ns=team") || asked.line.contains("&ns=team"),
                "{}",
                asked.line
            );
            if asked.line.contains("/v1/txn") {
                let operations: Vec<tarsec_harness::Value> =
                    serde_json::from_str(&asked.body).expect("a list");
                assert!(
                    operations
                        .iter()
                        .all(|one| one["KV"]["Namespace"] == "team"),
                    "{}",
                    asked.body
                );
            }
        }
        Ok(())
    };
    world().story("namespace", story).await;
}

#[tokio::test]
async fn a_namespace_that_consul_does_not_have_is_named_and_nothing_becomes_writable() {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let set = world.replica_set(1).await?;
        let agent = world
            .agent(&set[0], &consul)?
            .env("CONSUL_NAMESPACE", "team")
            .start()
            .await?;
        let reason = format!(
            "waiting for Consul: could not watch lock tarsec/{}/{}/leader: consul answered 400 (Bad request: Invalid \
             query parameter: \"ns\" - Namespaces are a Consul Enterprise feature), do not set CONSUL_NAMESPACE",
            world.cluster(),
            set.uuid()
        );
        wait_for_reason(&agent, &reason).await?;
        assert_eq!(set.writable().await, [0_usize; 0]);
        assert_eq!(consul.api()?.kv_below("tarsec").await?, []);
        assert_eq!(consul.api()?.sessions().await?.len(), 0);
        Ok(())
    };
    world().story("no-namespace", story).await;
}
