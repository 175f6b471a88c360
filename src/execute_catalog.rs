//! What the catalog is told, for instances of every role.

use std::collections::BTreeMap;

use crate::config::{Config, ServiceNaming};
use crate::consul::{CheckStatus, CheckUpdate, Consul, Registration};
use crate::decide::board::ServiceRef;
use crate::decide::event::ConsulFault;
use crate::decide::plan::{CatalogEntry, Health, Role};
use crate::execute::fault;

/// The one service of this instance.
pub(crate) fn service_id(config: &Config) -> String {
    let base = match &config.catalog.naming {
        ServiceNaming::Name(name) => name,
        ServiceNaming::Prefix(prefix) => prefix,
    };
    format!("{base}@{}", config.announce.id)
}

/// The name of the service of an instance in this role.
fn service_name(config: &Config, role: Role) -> String {
    let suffix = match role {
        Role::Master => "master",
        Role::Replica => "replica",
        Role::Router => "router",
    };
    match &config.catalog.naming {
        ServiceNaming::Name(name) => name.clone(),
        ServiceNaming::Prefix(prefix) => format!("{prefix}-{suffix}"),
    }
}

/// For whoever wants to know whether this agent lives: where it is registered in any of these roles.
pub(crate) fn service_ref(config: &Config, roles: &[Role]) -> ServiceRef {
    let mut names: Vec<String> = roles
        .iter()
        .map(|role| service_name(config, *role))
        .collect();
    names.dedup();
    ServiceRef {
        id: service_id(config),
        names,
    }
}

/// Registers the service, or updates its check; `Ok(false)`: Consul does not know it.
pub(crate) async fn tell(
    config: &Config,
    consul: &Consul,
    entry: CatalogEntry,
    register: bool,
) -> Result<bool, ConsulFault> {
    let status = match entry.health {
        Health::Passing => CheckStatus::Passing,
        Health::Warning => CheckStatus::Warning,
        Health::Critical => CheckStatus::Critical,
    };
    if !register {
        let updated = consul
            .update_check(&service_id(config), status, &entry.output)
            .await;
        return match updated {
            Ok(CheckUpdate::Updated) => Ok(true),
            Ok(CheckUpdate::NotRegistered) => Ok(false),
            Err(error) => Err(fault(&error)),
        };
    }
    let registration = registration(config, entry, status);
    consul
        .register(&registration)
        .await
        .map(|()| true)
        .map_err(|error| fault(&error))
}

fn registration(config: &Config, entry: CatalogEntry, status: CheckStatus) -> Registration {
    let catalog = &config.catalog;
    let registered = entry.registered;
    let tags = match registered.role {
        Role::Master => &catalog.master_tags,
        Role::Replica => &catalog.replica_tags,
        Role::Router => &catalog.router_tags,
    };
    let name = service_name(config, registered.role);
    let mut meta = BTreeMap::from([
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
    Registration {
        id: service_id(config),
        name,
        tags: tags.clone(),
        address: config.announce.host.clone(),
        port: config.announce.port,
        meta,
        ttl: registered.ttl,
        deregister_after: catalog.deregister_after,
        status,
        output: entry.output,
    }
}
