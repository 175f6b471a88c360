//! A master that hangs: frozen by a signal, with writes queued in it, and woken up again.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tarsec_harness::{
    AgentBuilder, Instance, LogLine, ReplicaSetOptions, Result, Rights, World, WritersBuilder,
    eventually, is_root,
};

use crate::scene::{SOME_WRITES, Scene, assert_reigns, guard, wait_for_master};
use crate::support::{LEASE, SOON, world};

/// Two refreshes are missed, and the lease still runs.
const SHORT_FREEZE: Duration = Duration::from_millis(1200);
/// How long before the end of its lease a master is woken.
const EARLY: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(10),
    Duration::ZERO,
];
/// R3's margin for this lease.
const MARGIN: Duration = Duration::from_millis(310);

/// Many writes stand in the queue of an instance that stops.
fn heavy(writers: WritersBuilder) -> WritersBuilder {
    writers.rate(2000).window(1024)
}

async fn under_load(world: &World) -> Result<Scene> {
    Scene::start_with(world, ReplicaSetOptions::of(3), |_, agent| agent, heavy).await
}

/// A moment that is not after the end of the instance's lease.
async fn lease_end(instance: &Instance) -> Result<Instant> {
    let asked_at = Instant::now();
    let lua = "return tonumber(tarsec_guard.deadline() - tarsec_guard.now()) / 1e9";
    let left = instance.eval(lua, &[]).await?;
    let left = left.first().and_then(|left| left.as_f64()).unwrap_or(0.0);
    Ok(asked_at + Duration::from_secs_f64(left))
}

/// Waits until the lock is free or another session's, and says when that was seen.
async fn wait_until_lock_moved(scene: &Scene, session: Option<&str>) -> Result<Instant> {
    eventually(SOON, "the lock to move", async || {
        let entry = scene.lock().await.map_err(|error| error.to_string())?;
        if entry.session.as_deref() == session {
            Err(entry.value)
        } else {
            Ok(Instant::now())
        }
    })
    .await
}

/// Whether a process will never run its program again: gone, a zombie, or past `PF_EXITING` (proc(5)).
fn is_beyond_return(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let flags = fields.get(6).and_then(|flags| flags.parse::<u64>().ok());
    matches!(fields.first(), Some(&("Z" | "X"))) || flags.is_some_and(|flags| flags & 0x4 != 0)
}

#[tokio::test]
async fn a_frozen_master_is_killed_before_its_lock_moves() {
    world()
        .story("frozen", async |world| {
            let scene = under_load(world).await?;
            let old = scene.master;
            let session = scene.lock().await?.session;
            let pid = scene.master().process().pid().unwrap_or(0);
            scene.master().freeze().await?;
            wait_until_lock_moved(&scene, session.as_deref()).await?;
            assert!(is_beyond_return(pid), "process {pid} may wake up");
            // An instance that is not dead wakes up now, with all that was queued; a dead process cannot be signalled.
            scene.master().thaw().ok();
            let heir = scene.wait_for_heir(SOON).await?;
            scene.master().process().wait(SOON).await?;
            let killed = "hung instance killed";
            scene
                .master_agent()
                .wait_for_log(SOON, killed, 0, |line| line.message() == killed)
                .await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            assert!(verdict.unanswered >= 100, "little was queued:\n{verdict}");
            assert_eq!(verdict.past_deadline.writes, 0, "{verdict}");
            assert_eq!(verdict.committed_late.writes, 0, "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_master_woken_about_the_end_of_its_lease_is_never_one_of_two() {
    world()
        .story("woken", async |world| {
            let scene = under_load(world).await?;
            let mut master = scene.master;
            for early in EARLY {
                let instance = &scene.set[master.instance];
                let lease_end = lease_end(instance).await?;
                instance.freeze().await?;
                tokio::time::sleep_until((lease_end - early).into()).await;
                instance.thaw().ok();
                scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
                master = wait_for_master(&scene.set, |_| true, SOON).await?;
                // An instance that was killed is a replica again before the next round.
                scene.set.start_all().await?;
            }
            let verdict = scene.writers.verdict().await?;
            verdict.assert_safe();
            assert_eq!(verdict.committed_late.writes, 0, "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_master_frozen_for_less_than_its_lease_goes_on() {
    world()
        .story("short-freeze", async |world| {
            let scene = under_load(world).await?;
            scene.wait_for_refreshes().await?;
            scene.master().freeze().await?;
            tokio::time::sleep(SHORT_FREEZE).await;
            scene.master().thaw()?;
            scene.wait_for_refreshes().await?;
            scene.set.stays_master(scene.master.instance, LEASE).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[scene.master]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_hung_master_that_is_not_to_be_killed_loses_its_lock_after_lease_and_margin_loudly() {
    world()
        .story("hung-wait", async |world| {
            let wait =
                |_, agent: tarsec_harness::AgentBuilder| agent.env("HUNG_INSTANCE_ACTION", "wait");
            let options = ReplicaSetOptions::of(3);
            let scene = Scene::start_with(world, options, wait, |writers| writers).await?;
            let old = scene.master;
            let session = scene.lock().await?.session;
            let lease_end = lease_end(scene.master()).await?;
            scene.master().freeze().await?;

            let loud = "IT IS NOT KILLED and may acknowledge late writes when it wakes";
            let moved_at = wait_until_lock_moved(&scene, session.as_deref()).await?;
            assert!(
                moved_at >= lease_end + MARGIN,
                "{:?} after the lease's end",
                moved_at.saturating_duration_since(lease_end)
            );
            let warning = scene
                .master_agent()
                .wait_for_log(SOON, loud, 0, |line| line.text.contains(loud))
                .await?;
            assert!(warning.text.contains("HUNG_INSTANCE_ACTION is wait"));
            scene.wait_for_check(old.instance, "critical", loud).await?;
            let dump = scene.master_agent().usr1().await?;
            let words = dump["reason"].as_str().unwrap_or_default();
            assert!(words.contains(loud), "{dump}");
            let heir = scene.wait_for_heir(SOON).await?;
            let set = scene.set;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);

            // Writes that were queued may land when it wakes, which the log says loudly; nothing after them does.
            let instance = &set[old.instance];
            assert!(instance.process().is_running());
            instance.thaw()?;
            eventually(
                SOON,
                "the woken instance to be fenced",
                async || match guard(instance).await {
                    Ok(guard) if guard["leased"] == false => Ok(()),
                    other => Err(format!("{other:?}")),
                },
            )
            .await?;
            set.stays_master(heir.instance, LEASE / 2).await
        })
        .await;
}

/// The instance that answers at the address says which process it is; here it names a process that is not its own.
#[tokio::test]
async fn a_process_that_does_not_prove_to_be_the_instance_is_never_killed() {
    world()
        .story("frozen-not-it", async |world| {
            #[allow(
                clippy::zombie_processes,
                reason = "only a story that has failed leaves it, and then the tests end"
            )]
            let mut victim = Command::new("sleep")
                .arg("120")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("coreutils");
            let lie = format!("rawset(box.info, 'pid', {})", victim.id());
            let options = ReplicaSetOptions::of(3).extra_lua(&lie);
            // The first agent may look into processes; the others go by their user, which is the victim's, and by the name.
            let pries = |index: usize| index == 0 || !is_root();
            let agent = |index, agent: AgentBuilder| match pries(index) {
                true => agent,
                false => agent.rights(Rights::Unprying),
            };
            let scene = Scene::start_with(world, options, agent, heavy).await?;
            let old = scene.master;
            for (index, agent) in scene.agents.iter().enumerate() {
                let words = match pries(index) {
                    true => "does not hold the other end of the connection",
                    false => "does not bear the name that it was to show",
                };
                let said = |line: &LogLine| line.field("why").to_string().contains(words);
                agent.wait_for_log(SOON, words, 0, said).await?;
            }
            scene.master().freeze().await?;
            let heir = scene.wait_for_heir(LEASE * 3 + SOON).await?;
            let found = victim.try_wait().expect("it is ours");
            victim.kill().expect("it is ours");
            victim.wait().expect("it is ours");
            assert!(found.is_none(), "the wrong process was killed: {found:?}");
            // Its agent could not kill it, and nobody is to see what is queued in it (docs/LIMITS.md).
            scene.master().process().kill_no_wait()?;
            scene.set.stays_master(heir.instance, LEASE).await?;
            assert_reigns(&scene.writers.verdict().await?, &[old, heir]);
            for instance in scene.set.iter().filter(|it| it.process().is_running()) {
                let pid = instance.process().pid().unwrap_or(0);
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
                assert_eq!(name.expect("it lives").trim_end(), "tarantool");
            }
            Ok(())
        })
        .await;
}
