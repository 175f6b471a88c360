//! What an agent tells the catalog, for instances of every role.
//!
//! A service's id holds its instance's UUID, because one Consul agent may serve many instances, and nothing else about them
//! is unique for sure: containers announce the same address by default. Two agents with one id would take turns in
//! overwriting each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::service::{dns_label, expanded};
use crate::config::{Config, ServiceNaming};
use crate::consul::{CheckStatus, CheckUpdate, Consul, Registration};
use crate::decide::board::ServiceRef;
use crate::decide::plan::{CatalogEntry, Health, Registered, Role};
use crate::decide::sight::ConsulFault;
use crate::errors::with_causes;

/// The service as this agent last registered it.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnService(Arc<Mutex<Last>>);

#[derive(Debug, Default)]
struct Last {
    /// `None`: this agent has not begun to register anything.
    id: Option<String>,
    /// What was registered for this instance under other ids is gone, and so is `before`.
    alone: bool,
    /// What this agent registered for the instance that was there before this one, which was set up anew.
    before: Option<String>,
}

impl OwnService {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `id` is about to be registered; whether it was known to be the instance's only one.
    fn begins(&self, id: &str) -> bool {
        let mut last = self.last();
        if last.id.as_deref() != Some(id) {
            let before = last.id.take().or_else(|| last.before.take());
            *last = Last {
                id: Some(id.to_owned()),
                alone: false,
                before,
            };
        }
        last.alone
    }
}

/// The one service of an instance.
fn service_id(config: &Config, replicaset: Option<&str>, instance: &str) -> String {
    let base = base_name(config, replicaset);
    format!("{base}@{}@{instance}", config.announce.id)
}

/// The setting with cluster and replica set put in; a router has no replica set.
fn base_name(config: &Config, replicaset: Option<&str>) -> String {
    let (ServiceNaming::Name(name) | ServiceNaming::Prefix(name)) = &config.catalog.naming;
    expanded(name, &config.cluster, replicaset)
}

/// The name of the service of an instance in this role.
pub(crate) fn service_name(config: &Config, replicaset: Option<&str>, role: Role) -> String {
    let suffix = match role {
        Role::Master => "master",
        Role::Replica => "replica",
        Role::Router => "router",
    };
    let base = base_name(config, replicaset);
    match &config.catalog.naming {
        ServiceNaming::Name(_) => base,
        ServiceNaming::Prefix(_) => format!("{base}-{suffix}"),
    }
}

/// Where this agent is registered in any of these roles, for a reader who wants to know whether it lives.
pub(crate) fn service_ref(
    config: &Config,
    replicaset: Option<&str>,
    instance: &str,
    roles: &[Role],
) -> ServiceRef {
    let mut names: Vec<String> = roles
        .iter()
        .map(|role| service_name(config, replicaset, *role))
        .collect();
    names.dedup();
    ServiceRef {
        id: service_id(config, replicaset, instance),
        names,
    }
}

fn replicaset_of(registered: &Registered) -> Option<&str> {
    let has_one = registered.role != Role::Router;
    has_one.then_some(&registered.replicaset)
}

/// Registers the service, or updates its check; `Ok(false)`: Consul does not know it.
pub(crate) async fn tell(
    config: &Config,
    consul: &Consul,
    own: &OwnService,
    entry: CatalogEntry,
    register: bool,
) -> Result<bool, ConsulFault> {
    let status = match entry.health {
        Health::Passing => CheckStatus::Passing,
        Health::Warning => CheckStatus::Warning,
        Health::Critical => CheckStatus::Critical,
    };
    let instance = entry.registered.instance.clone();
    let id = service_id(config, replicaset_of(&entry.registered), &instance);
    if !register {
        let updated = consul.update_check(&id, status, &entry.output).await;
        return match updated {
            Ok(CheckUpdate::Updated) => Ok(true),
            Ok(CheckUpdate::NotRegistered) => Ok(false),
            Err(error) => Err(error.into()),
        };
    }
    let alone = own.begins(&id);
    let registration = registration(config, id, entry, status);
    let registered = consul.register(&registration).await;
    registered.map_err(ConsulFault::from)?;
    if !alone {
        end_others(consul, own, &instance, &registration.id).await;
    }
    Ok(true)
}

/// Removes what this agent registered for the instance that was there before, and what was registered for this one under
/// another id: by an agent of a version whose ids had no UUID, or before the address or the name changed. It would stand
/// there as critical, or for a moment as a second master.
async fn end_others(consul: &Consul, own: &OwnService, instance: &str, id: &str) {
    let before = own.last().before.clone();
    let ended = async {
        if let Some(before) = before {
            tracing::info!(
                service = before,
                "removing the registration of the instance before this one"
            );
            consul.deregister(&before).await?;
        }
        for other in consul.services_of(instance).await? {
            if other != id {
                tracing::info!(
                    service = other,
                    "removing an older registration of this instance"
                );
                consul.deregister(&other).await?;
            }
        }
        Ok::<(), crate::consul::ConsulError>(())
    };
    match ended.await {
        Ok(()) => {
            let mut last = own.last();
            last.alone = true;
            last.before = None;
        }
        // It is tried again with the next registration; without it they turn critical and go by themselves.
        Err(error) => tracing::debug!(
            error = with_causes(&error),
            "older registrations not looked for"
        ),
    }
}

/// Takes the service out of the catalog, if this agent has ever begun to put it there.
pub(crate) async fn deregister(consul: &Consul, own: &OwnService) -> Result<bool, ConsulFault> {
    let id = own.last().id.clone();
    if let Some(id) = id {
        let removed = consul.deregister(&id).await;
        removed.map_err(ConsulFault::from)?;
    }
    Ok(true)
}

fn registration(
    config: &Config,
    id: String,
    entry: CatalogEntry,
    status: CheckStatus,
) -> Registration {
    let catalog = &config.catalog;
    let registered = entry.registered;
    let tags = match registered.role {
        Role::Master => &catalog.master_tags,
        Role::Replica => &catalog.replica_tags,
        Role::Router => &catalog.router_tags,
    };
    let replicaset = replicaset_of(&registered);
    let places = [
        ("cluster", Some(&*config.cluster)),
        ("replicaset", replicaset),
    ];
    let places = places.iter().filter_map(|(kind, name)| {
        let name = name.as_ref()?;
        Some(format!("{kind}-{}", dns_label(name)))
    });
    Registration {
        id,
        name: service_name(config, replicaset, registered.role),
        // The role comes first: a client that reads one tag reads that.
        tags: tags.iter().cloned().chain(places).collect(),
        address: config.announce.host.clone(),
        port: config.announce.port,
        ttl: registered.ttl,
        meta: meta(&config.cluster, registered),
        deregister_after: catalog.deregister_after,
        status,
        output: entry.output,
    }
}

fn meta(cluster: &str, registered: Registered) -> BTreeMap<String, String> {
    let mut meta = BTreeMap::from([
        ("cluster".to_owned(), cluster.to_owned()),
        ("instance_uuid".to_owned(), registered.instance),
        ("tarantool_version".to_owned(), registered.version),
        (
            "tarsec_version".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
    ]);
    if registered.role != Role::Router {
        meta.insert("replicaset_uuid".to_owned(), registered.replicaset);
        meta.insert("term".to_owned(), registered.term.to_string());
    }
    meta
}
