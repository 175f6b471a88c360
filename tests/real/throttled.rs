//! A Consul that asks for fewer requests gets them, and no lease is lost for it that could be refreshed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tarsec_harness::{AgentBuilder, ReplicaSetOptions, Result, World};

use crate::scene::Scene;
use crate::support::world;
use crate::surroundings_gate::{Gate, Rules};

/// The default of the setting, so that a `Retry-After` of two seconds is within what it allows.
const LEASE: Duration = Duration::from_secs(10);
const MEMBERS: usize = 3;

struct Throttled {
    scene: Scene,
    gate: Gate,
    throttle: Arc<Mutex<Option<String>>>,
}

impl Throttled {
    async fn start(world: &World, failsafe: &'static str) -> Result<Self> {
        let throttle: Arc<Mutex<Option<String>>> = Arc::default();
        let rules = Rules {
            throttle: Arc::clone(&throttle),
            ..Rules::default()
        };
        let consul = world.consul().await?;
        let gate = Gate::start(world, &consul.agent_addr(0), rules).await?;
        let set = world
            .replica_set_with(ReplicaSetOptions::of(MEMBERS))
            .await?;
        let agent = |_, agent: AgentBuilder| {
            agent
                .env("CONSUL_HTTP_ADDR", &gate.addr)
                .env("MASTER_LEASE", &format!("{}ms", LEASE.as_millis()))
                .env("HEALTHCHECK_TIMEOUT", "2s")
                .env("FAILSAFE", failsafe)
        };
        let scene = Scene::start_on(world, consul, set, agent, |writers| writers).await?;
        scene.wait_for_refreshes().await?;
        Ok(Self {
            scene,
            gate,
            throttle,
        })
    }

    fn answers(&self, retry_after: Option<&str>) {
        *self.throttle.lock().expect("no request panics") = retry_after.map(str::to_owned);
    }

    fn refusals(&self) -> usize {
        let asked = self.gate.asked();
        asked.iter().filter(|asked| asked.throttled).count()
    }
}

#[tokio::test]
async fn a_consul_that_asks_for_fewer_requests_gets_them() {
    world()
        .story("throttled", async |world| {
            let story = Throttled::start(world, "on").await?;
            let master = story.scene.master.instance;
            let time = LEASE * 2;
            story.answers(Some("2"));
            // Members promise what Consul does not accept.
            story.scene.set.stays_master(master, time).await?;
            let refused = story.refusals();
            story.answers(None);
            // About one call of each kind in two seconds; an agent that does not listen sends five a second and more.
            let seconds = usize::try_from(time.as_secs()).expect("few");
            let most = MEMBERS * seconds * 3 / 2;
            assert!(
                refused <= most,
                "{refused} requests in {time:?}, at most {most} are polite"
            );
            assert!(refused >= MEMBERS * 2, "{refused}: the agents gave up");
            story.scene.wait_for_refreshes().await?;
            story.scene.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn no_answer_puts_a_refresh_off_for_longer_than_its_lease_allows() {
    world()
        .story("throttled-refresh", async |world| {
            let story = Throttled::start(world, "off").await?;
            let master = story.scene.master.instance;
            story.answers(Some("3600"));
            // Longer than until the next refresh, and short enough for one after that.
            story.scene.set.stays_master(master, LEASE * 3 / 10).await?;
            assert!(story.refusals() > 0);
            story.answers(None);
            // The lease would be over by now.
            story.scene.set.stays_master(master, LEASE).await?;
            story.scene.assert_undisturbed().await
        })
        .await;
}
