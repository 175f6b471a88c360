//! Secrets that are rotated while agents run: a refusal is enough for their files to be read again, and no operator
//! restarts anything.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use tarsec_harness::{
    Agent, AgentBuilder, ConsulApi, ConsulOptions, Instance, LogLine, ReplicaSet,
    ReplicaSetOptions, Result, Token, World, eventually, json,
};

use crate::scene::{SOME_WRITES, Scene, assert_reigns, wait_for_master};
use crate::settings::{CREATE_FOLLOWER, FOLLOWER, wait_until_follows};
use crate::support::{LEASE, SOON, world};
use crate::surroundings_acl::{NAMING, policy_without, strict_consul};

/// What the log says of a secret that was renewed, and of a secret that could not be.
const TAKEN: &str = "a changed secret was taken";
const KEPT: &str = "a secret cannot be read again: the one before is kept";
/// Long enough for several readings of a secret that stays refused.
const READINGS: Duration = Duration::from_secs(7);

/// The file takes this content's place in one step, as secret stores do it.
fn put(file: &Path, content: &str) {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, content).expect("the world can be written to");
    std::fs::rename(fresh, file).expect("the world can be written to");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn said(agent: &Agent, message: &str) -> Result<Vec<LogLine>> {
    let mut logs = agent.logs()?;
    logs.retain(|line| line.message() == message);
    Ok(logs)
}

/// Waits until the agent has said just so many times that it took what these variables name.
pub(crate) async fn wait_until_taken(agent: &Agent, settings: &str, times: usize) -> Result<()> {
    let what = format!("{settings} taken {times} times");
    eventually(SOON, &what, async || {
        let lines = said(agent, TAKEN).map_err(|error| error.to_string())?;
        let fitting = lines
            .iter()
            .filter(|line| line.field("settings") == settings);
        if fitting.count() == times {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    })
    .await
}

/// Waits until the agent has said these words of a secret that it keeps, and sees to it that it says them once.
async fn wait_until_kept(agent: &Agent, words: &str) -> Result<()> {
    let fits = |line: &LogLine| {
        let why = line.field("why").as_str().unwrap_or_default();
        line.message() == KEPT && why.contains(words)
    };
    let what = format!("{KEPT:?} with {words:?}");
    agent.wait_for_log(SOON, &what, 0, fits).await.map(|_| ())
}

fn assert_kept_once(agent: &Agent, words: &str) -> Result<()> {
    assert!(agent.process().is_running(), "the agent has ended");
    let mut lines = said(agent, KEPT)?;
    lines.retain(|line| line.text.contains(words));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0].level(), "WARN");
    Ok(())
}

async fn new_token(world: &World, api: &ConsulApi, name: &str) -> Result<Token> {
    api.create_token(name, &policy_without(world, "")).await
}

async fn delete_token(api: &ConsulApi, token: &Token) -> Result<()> {
    let path = format!("/v1/acl/token/{}", token.accessor);
    api.call("DELETE", &path, None::<String>).await.map(|_| ())
}

#[tokio::test]
async fn a_rotated_token_interrupts_nothing_and_one_that_is_missing_ends_nothing() {
    let story = async |world: &World| {
        let consul = strict_consul(world).await?;
        let api = consul.api()?.clone();
        let file = world.dir().join("token");
        let first = new_token(world, &api, "first").await?;
        put(&file, &format!("{}\n", first.secret));
        let set = world.replica_set(2).await?;
        let with_file = |_, agent: AgentBuilder| {
            agent
                // Otherwise a master outlives any refusal by the other's promises.
                .env("FAILSAFE", "off")
                .env(NAMING.0, NAMING.1)
                .without_env("CONSUL_HTTP_TOKEN")
                .env("CONSUL_HTTP_TOKEN_FILE", &text(&file))
        };
        let scene = Scene::start_on(world, consul, set, with_file, |writers| writers).await?;

        // Both are valid for a moment: no agent notices.
        let second = new_token(world, &api, "second").await?;
        put(&file, &second.secret);
        delete_token(&api, &first).await?;
        for agent in &scene.agents {
            wait_until_taken(agent, "CONSUL_HTTP_TOKEN_FILE", 1).await?;
        }
        scene.wait_for_refreshes().await?;
        scene
            .set
            .stays_master(scene.master.instance, LEASE * 2)
            .await?;

        // Nothing is there to be read, and then a file that hangs: the master's lease ends, its agent does not.
        std::fs::remove_file(&file).expect("it is there");
        delete_token(&api, &second).await?;
        scene.set.wait_for_no_master(SOON).await?;
        let gone = "could not read the file that CONSUL_HTTP_TOKEN_FILE names";
        for agent in &scene.agents {
            wait_until_kept(agent, gone).await?;
        }
        let since = std::time::Instant::now();
        while since.elapsed() < READINGS {
            assert_eq!(scene.set.writable().await, [0_usize; 0]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for agent in &scene.agents {
            assert_kept_once(agent, gone)?;
        }
        mkfifoat(CWD, &file, Mode::from(0o600)).expect("the world can be written to");
        let hangs = "reading what CONSUL_HTTP_TOKEN_FILE names takes more than";
        for agent in &scene.agents {
            wait_until_kept(agent, hangs).await?;
            // The loop answers while a thread of its own hangs.
            agent.usr1().await?;
        }

        let third = new_token(world, &api, "third").await?;
        // Agents that hang at the FIFO are let go and find it empty, because each of them might read a part of what is
        // written there. An agent that comes later finds a file.
        let pipe = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&file);
        let pipe = pipe.expect("it is there");
        put(&file, &third.secret);
        drop(pipe);
        scene.set.wait_for_master(SOON).await?;
        for agent in &scene.agents {
            wait_until_taken(agent, "CONSUL_HTTP_TOKEN_FILE", 2).await?;
            for secret in [&first.secret, &second.secret, &third.secret] {
                let told = agent
                    .logs()?
                    .iter()
                    .any(|line| line.text.contains(secret.as_str()));
                assert!(!told, "a token in the log");
            }
        }
        scene.writers.stop().await?.judge().assert_safe();
        Ok(())
    };
    world().story("rotated-token", story).await;
}

pub(crate) async fn change_password(master: &Instance, user: &str, password: &str) -> Result<()> {
    let args = [user.into(), password.into()];
    master
        .eval("box.schema.user.passwd(...)", &args)
        .await
        .map(|_| ())
}

/// Waits until the master's password has come to all instances that run.
pub(crate) async fn wait_until_replicated(
    set: &ReplicaSet,
    master: usize,
    user: &str,
) -> Result<()> {
    let lua = "return require('json').encode(box.space._user.index.name:get(...)[5])";
    let args = [user.into()];
    let wanted = set[master].eval(lua, &args).await?;
    eventually(SOON, "the password everywhere", async || {
        for instance in set.iter() {
            let found = instance
                .eval(lua, &args)
                .await
                .map_err(|error| error.to_string())?;
            if found != wanted {
                return Err(format!("{} has another", instance.name()));
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_rotated_password_is_taken_by_the_link_and_by_the_question_for_promises() {
    let story = async |world: &World| {
        let login = Instance::agent_login();
        let file = world.dir().join("password");
        put(&file, &format!("{}\n", login.password));
        let with_file = |_, agent: AgentBuilder| {
            agent
                .linked()
                .without_env("TARANTOOL_PASSWORD")
                .env("TARANTOOL_PASSWORD_FILE", &text(&file))
        };
        let options = ReplicaSetOptions::of(2);
        let scene = Scene::start_with(world, options, with_file, |writers| writers).await?;
        let (master, replica) = (scene.master.instance, scene.replica());
        change_password(scene.master(), &login.user, "rotated").await?;
        wait_until_replicated(&scene.set, master, &login.user).await?;
        // The replica's agent is refused while its file holds the old password, and waits.
        scene.set[replica].restart().await?;
        let reason = "set TARANTOOL_PASSWORD or TARANTOOL_PASSWORD_FILE to";
        scene.agents[replica]
            .wait_for_log(SOON, reason, 0, |line| line.text.contains(reason))
            .await?;
        put(&file, "rotated\n");
        wait_until_taken(&scene.agents[replica], "TARANTOOL_PASSWORD_FILE", 1).await?;
        scene.set.wait_for_mesh(SOON).await?;
        scene.wait_for_check(replica, "passing", "").await?;

        // The master's agent has its link, and finds out when it asks the other's guard.
        assert_eq!(said(scene.master_agent(), TAKEN)?.len(), 0);
        scene.consul.kill().await?;
        scene.set.stays_master(master, LEASE * 3).await?;
        wait_until_taken(scene.master_agent(), "TARANTOOL_PASSWORD_FILE", 1).await?;
        scene.consul.start_all().await?;
        scene.wait_for_refreshes().await?;

        // And its own link comes back with the password that it has now.
        let link = scene.master_agent().instance_link().expect("it is linked");
        link.cut().await?;
        link.restore().await?;
        scene.wait_for_refreshes().await?;
        scene.set.stays_master(master, LEASE * 2).await?;
        scene.assert_undisturbed().await
    };
    world().story("rotated-password", story).await;
}

/// One instance, so that no member can promise anything: the link alone has to come back in time.
#[tokio::test]
async fn an_agent_whose_link_is_refused_is_back_before_its_lease_ends() {
    let story = async |world: &World| {
        let login = Instance::agent_login();
        let file = world.dir().join("password");
        put(&file, &login.password);
        let with_file = |_, agent: AgentBuilder| {
            agent
                .linked()
                .without_env("TARANTOOL_PASSWORD")
                .env("TARANTOOL_PASSWORD_FILE", &text(&file))
                .env("MASTER_LEASE", "10s")
        };
        let options = ReplicaSetOptions::of(1);
        let scene = Scene::start_with(world, options, with_file, |writers| writers).await?;
        put(&file, "rotated");
        change_password(scene.master(), &login.user, "rotated").await?;
        let link = scene.master_agent().instance_link().expect("it is linked");
        link.cut().await?;
        link.restore().await?;
        wait_until_taken(scene.master_agent(), "TARANTOOL_PASSWORD_FILE", 1).await?;
        scene.wait_for_refreshes().await?;
        scene.assert_undisturbed().await
    };
    world().story("rotated-password-alone", story).await;
}

#[tokio::test]
async fn replicas_that_follow_are_pointed_at_the_master_with_the_renewed_password() {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let set = world.replica_set(3).await?;
        set[0].set_writable(true).await?;
        let login = [json!(FOLLOWER), json!("of.yesterday")];
        set[0].eval(CREATE_FOLLOWER, &login).await?;
        set[0].set_writable(false).await?;
        let file = world.dir().join("password");
        put(&file, "of.yesterday");
        let follow = |_, agent: AgentBuilder| {
            agent
                .env("REPLICATION", "follow")
                .env("TARANTOOL_USER", FOLLOWER)
                .without_env("TARANTOOL_PASSWORD")
                .env("TARANTOOL_PASSWORD_FILE", &text(&file))
        };
        let agents = world.agents_with(&set, &consul, follow).await?;
        let writers = set.writers().start();
        let old = wait_for_master(&set, |_| true, SOON).await?;
        writers.wait_for_writes(SOME_WRITES, SOON).await?;
        let others = |master: usize| (0..3).filter(move |index| *index != master);
        for index in others(old.instance) {
            wait_until_follows(&set[index], set[old.instance].addr()).await?;
        }

        change_password(&set[old.instance], FOLLOWER, "of.today").await?;
        wait_until_replicated(&set, old.instance, FOLLOWER).await?;
        put(&file, "of.today");
        // No agent has been refused anything yet; the next master's first replica is the first to be.
        set[old.instance].kill().await?;
        let heir = wait_for_master(&set, |seen| seen.term > old.term, SOON).await?;
        for index in others(heir.instance).filter(|index| *index != old.instance) {
            wait_until_follows(&set[index], set[heir.instance].addr()).await?;
            wait_until_taken(&agents[index], "TARANTOOL_PASSWORD_FILE", 1).await?;
        }
        set[old.instance].start().await?;
        wait_until_follows(&set[old.instance], set[heir.instance].addr()).await?;
        let since = set.writers().start();
        since.wait_for_writes(SOME_WRITES, SOON).await?;
        let history = since.stop().await?;
        for index in 0..set.len() {
            set.wait_for_all_writes(index, &history, SOON).await?;
        }

        // An agent that starts with the right password may find an instance that follows with another.
        change_password(&set[heir.instance], FOLLOWER, "of.tomorrow").await?;
        wait_until_replicated(&set, heir.instance, FOLLOWER).await?;
        put(&file, "of.tomorrow");
        let replica = old.instance;
        agents[replica].restart().await?;
        let reconnect = "
            local uris = box.cfg.replication
            box.cfg{replication = {}}
            box.cfg{replication = uris}";
        set[replica].eval(reconnect, &[]).await?;
        wait_until_follows(&set[replica], set[heir.instance].addr()).await?;
        assert_reigns(&writers.verdict().await?, &[old, heir]);
        Ok(())
    };
    world().story("rotated-password-follow", story).await;
}

/// The files that an agent uses, apart from those of the servers.
struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(world: &World) -> Self {
        let at = |name: &str| world.dir().join(format!("agent-{name}"));
        Self {
            ca: at("ca.pem"),
            certificate: at("client.pem"),
            key: at("client.key"),
        }
    }

    /// What the servers' directory holds now.
    fn take(&self, world: &World, which: &[&str]) {
        let all = [
            ("ca.pem", &self.ca),
            ("client.pem", &self.certificate),
            ("client.key", &self.key),
        ];
        for (name, file) in all.iter().filter(|(name, _)| which.contains(name)) {
            let source = world.dir().join("consultls").join(name);
            let content = std::fs::read_to_string(source).expect("the harness has made it");
            put(file, &content);
        }
    }

    fn env(&self, agent: AgentBuilder) -> AgentBuilder {
        agent
            .env("CONSUL_CACERT", &text(&self.ca))
            .env("CONSUL_CLIENT_CERT", &text(&self.certificate))
            .env("CONSUL_CLIENT_KEY", &text(&self.key))
    }
}

#[tokio::test]
async fn a_rotated_authority_and_certificate_are_taken_as_soon_as_they_fit_together() {
    let story = async |world: &World| {
        let consul = world
            .consul_with(ConsulOptions::default().mutual_tls())
            .await?;
        let files = Files::of(world);
        files.take(world, &["ca.pem", "client.pem", "client.key"]);
        let set = world.replica_set(2).await?;
        let with_files = |_, agent: AgentBuilder| files.env(agent).env("FAILSAFE", "off");
        let scene = Scene::start_on(world, consul, set, with_files, |writers| writers).await?;

        scene.consul.rotate_certificates()?;
        scene.consul.restart().await?;
        scene.set.wait_for_no_master(SOON).await?;
        let unknown = "nobody in CONSUL_CACERT or CONSUL_CAPATH";
        let agent = scene.master_agent();
        agent
            .wait_for_log(SOON, unknown, 0, |line| line.text.contains(unknown))
            .await?;
        // A certificate without its key is none yet.
        files.take(world, &["ca.pem", "client.pem"]);
        let half = "could not use";
        wait_until_kept(agent, half).await?;
        tokio::time::sleep(READINGS).await;
        assert_kept_once(agent, half)?;
        assert_eq!(scene.set.writable().await, [0_usize; 0]);
        files.take(world, &["client.key"]);
        scene.set.wait_for_master(SOON).await?;
        for agent in &scene.agents {
            let all = "CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY";
            wait_until_taken(agent, all, 1).await?;
            assert!(agent.process().is_running(), "the agent has ended");
        }
        scene.writers.stop().await?.judge().assert_safe();
        Ok(())
    };
    world().story("rotated-certificates", story).await;
}
