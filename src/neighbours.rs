//! Looks from time to time for others under the name of our service.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::config::{Config, ServiceNaming};
use crate::consul::{Consul, ConsulError, Service};
use crate::decide::neighbours::{Neighbour, Neighbours};
use crate::decide::plan::Role;
use crate::execute_catalog::service_name;

/// Between two looks, in `MEMBER_INTERVAL`s: a minute by default. A neighbour stays for hours and nobody waits for this, while
/// an agent at rest has few requests to spend.
pub(crate) const LOOKS_APART: u32 = 6;

/// Whose neighbours are looked for.
pub(crate) struct NeighbourWatch {
    pub(crate) consul: Consul,
    pub(crate) name: String,
    pub(crate) cluster: String,
    /// A master's tag, where all roles have one name.
    pub(crate) tag: Option<String>,
    /// Between two looks.
    pub(crate) pause: Duration,
}

impl NeighbourWatch {
    /// For a router where there is no replica set.
    pub(crate) fn new(config: &Config, consul: &Consul, replicaset: Option<&str>) -> Self {
        let (role, tags) = match replicaset {
            Some(_) => (Role::Master, &config.catalog.master_tags),
            None => (Role::Router, &config.catalog.router_tags),
        };
        let tag = match &config.catalog.naming {
            ServiceNaming::Name(_) => tags.first().cloned(),
            ServiceNaming::Prefix(_) => None,
        };
        Self {
            consul: consul.clone(),
            name: service_name(config, replicaset, role),
            cluster: config.cluster.clone(),
            tag,
            pause: config.member_interval * LOOKS_APART,
        }
    }

    async fn look(&self) -> Result<Neighbours, ConsulError> {
        let services = self.consul.services_named(&self.name).await?;
        let fits = |service: &Service| {
            let tag = self.tag.as_ref();
            service.is_found && tag.is_none_or(|tag| service.tags.contains(tag))
        };
        let mut found: Vec<Neighbour> = services
            .into_iter()
            .filter(fits)
            .map(|mut service| Neighbour {
                instance: service.meta.remove("instance_uuid"),
                cluster: service.meta.remove("cluster"),
                replicaset: service.meta.remove("replicaset_uuid"),
                place: service.place,
            })
            .collect();
        found.sort();
        Ok(Neighbours {
            name: self.name.clone(),
            cluster: self.cluster.clone(),
            found,
        })
    }

    /// Tells what it sees each time that has changed, for as long as somebody listens. A failed read is no news: a
    /// token without the right to read services is told of no neighbours.
    pub(crate) async fn watch<E: From<Neighbours>>(self, events: mpsc::Sender<E>) {
        let mut last = Neighbours::default();
        while !events.is_closed() {
            if let Ok(seen) = self.look().await
                && seen != last
            {
                last = seen.clone();
                // The receiver is gone only when the agent ends.
                let _ = events.send(seen.into()).await;
            }
            sleep(self.pause).await;
        }
    }
}
