//! Commands where keys hold what no agent wrote, or what is left of a member.

use tarsec_harness::{Value, World, json};

use crate::commands::{REPLICA, SET, Stage, assert_ended, tarsec_with};
use crate::support::world;

/// Whoever may write a member's key chooses its name, and operators read it on their terminals and in their scripts.
#[tokio::test]
async fn no_command_prints_a_character_that_hides_or_turns_text_nor_a_login() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        let hidden = ['\u{9b}', '\u{61c}', '\u{180e}', '\u{202e}', '\u{e0041}'];
        let name: String = ["admin:SECRET@db-3"]
            .into_iter()
            .map(str::to_owned)
            .chain(hidden.map(String::from))
            .collect();
        let uuid = "aaaaaaa3-0000-4000-8000-000000000000";
        let member = json!({
            "v": 1, "instance": uuid, "replicaset": SET, "name": name, "uri": name, "role": "replica",
            "health": "critical", "reason": name, "term": 7, "lease_ms": 2000,
        });
        stage.put(&format!("members/{uuid}"), &member).await?;
        for args in [
            &["status", "--no-wait"][..],
            &["status", "--no-wait", "--json"],
            &["history"],
        ] {
            let output = stage.run(args).await;
            let text = format!("{}{}", output.stdout, output.stderr);
            assert!(!text.contains(hidden), "{args:?}: {text:?}");
            assert!(!text.contains("SECRET"), "{args:?}: {text}");
        }
        let output = stage.run(&["status", "--no-wait", "--json"]).await;
        assert!(output.stdout.contains("\\u202e"), "{}", output.stdout);
        let address = [("CONSUL_HTTP_ADDR", "http://admin:SECRET@consul:8500")];
        let output = tarsec_with(world, &stage.consul, &["status"], &address).await;
        assert_ended(&output, 2, "CONSUL_HTTP_ADDR");
        assert!(!output.stderr.contains("SECRET"), "{}", output.stderr);
        Ok(())
    };
    world().story("commands-plain", story).await;
}

#[tokio::test]
async fn a_member_that_is_gone_is_forgotten_and_no_other() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        let gone = "aaaaaaa3-0000-4000-8000-000000000000";
        let member = json!({
            "v": 1, "instance": gone, "replicaset": SET, "name": "db-3:3301", "uri": "db-3:3301", "role": "replica",
            "term": 7, "lease_ms": 2000,
        });
        stage.put(&format!("members/{gone}"), &member).await?;
        stage.put(&format!("ballots/{gone}"), &json!({})).await?;
        // A key that no agent wrote: no value of it is a member's.
        stage
            .put("members/anything", &json!({"term": u64::MAX}))
            .await?;
        let output = stage.run(&["forget", "db-1:3301", "--yes"]).await;
        assert_ended(&output, 6, "holds the lock");
        let output = stage.run(&["forget", "db-2:3301", "--yes"]).await;
        assert_ended(
            &output,
            6,
            &format!("box.space._cluster.index.uuid:delete('{REPLICA}')"),
        );
        let output = stage.run(&["forget", "db-3"]).await;
        assert_ended(&output, 2, "--yes");
        assert_eq!(stage.value(&format!("members/{gone}")).await?, member);
        let output = stage.run(&["forget", "db-3", "--yes"]).await;
        assert_ended(&output, 0, "db-3:3301 is forgotten");
        let output = stage.run(&["forget", "anything", "--yes"]).await;
        assert_ended(&output, 0, "anything is forgotten");
        for key in [
            format!("members/{gone}"),
            format!("ballots/{gone}"),
            "members/anything".to_owned(),
        ] {
            assert_eq!(stage.value(&key).await?, Value::Null, "{key}");
        }
        assert!(
            stage
                .value(&format!("members/{REPLICA}"))
                .await?
                .is_object()
        );
        let output = stage.run(&["forget", "db-3", "--yes"]).await;
        assert_ended(&output, 2, "neither a replica set nor a member");
        Ok(())
    };
    world().story("commands-forget", story).await;
}
