//! What an agent costs while nothing happens.

use std::collections::BTreeMap;
use std::time::Duration;

use tarsec_harness::{Result, Usage, World};

use super::Options;
use super::cluster::with_default_settings;

const SOON: Duration = Duration::from_secs(60);
/// Until the first registrations are made and the sessions of agents that lost the race are gone.
const SETTLE: Duration = Duration::from_secs(10);

/// One agent's costs over the time that was watched.
pub(crate) struct Cost {
    pub(crate) is_holder: bool,
    pub(crate) usage: Usage,
    pub(crate) cpu: Duration,
    /// Requests to Consul by kind.
    pub(crate) requests: BTreeMap<String, u64>,
}

/// Watches three fresh agents at default settings, with no writers about.
pub(crate) async fn watch(options: &Options, world: &World) -> Result<Vec<Cost>> {
    let consul = options.consul(world).await?;
    let set = world.replica_set(3).await?;
    let mut agents = Vec::new();
    let mut links = Vec::new();
    for instance in set.iter() {
        let link = world.proxy(&consul.agent_addr(0)).await?;
        let agent = with_default_settings(world.agent(instance, &consul)?).consul_via(&link);
        let agent = agent.without_env("LOG_FORMAT").without_env("LOG_LEVEL");
        agents.push(agent.start().await?);
        links.push(link);
    }
    let master = set.wait_for_master(SOON).await?;
    tokio::time::sleep(SETTLE).await;
    let before: Vec<_> = agents
        .iter()
        .zip(&links)
        .map(|(agent, link)| Ok((agent.process().usage()?, link.http_requests())))
        .collect::<Result<_>>()?;
    tokio::time::sleep(options.idle).await;
    let mut costs = Vec::new();
    for (index, (usage, requests)) in before.into_iter().enumerate() {
        let now = agents[index].process().usage()?;
        let mut made = links[index].http_requests();
        for (kind, count) in requests {
            if let Some(total) = made.get_mut(&kind) {
                *total -= count;
            }
        }
        made.retain(|_, count| *count > 0);
        costs.push(Cost {
            is_holder: index == master,
            usage: now,
            cpu: now.cpu.saturating_sub(usage.cpu),
            requests: made,
        });
    }
    Ok(costs)
}
