//! The catalog, through the agent beside us: our service and its TTL check.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Consul;
use super::advice::{service_rule, service_rule_of};
use super::error::ConsulError;
use super::session::json;
use super::wire::{Call, encode};
use crate::plain;

/// A service and its TTL check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Unique at its agent.
    pub id: String,
    /// What others look for.
    pub name: String,
    /// Its role.
    pub tags: Vec<String>,
    /// Empty: the node's address.
    pub address: String,
    /// 0 for a unix socket.
    pub port: u16,
    /// Anything.
    pub meta: BTreeMap<String, String>,
    /// Without an update for this long the check turns critical by itself.
    pub ttl: Duration,
    /// Critical for this long, the service is deregistered; Consul's least is a minute.
    pub deregister_after: Duration,
    /// The check's.
    pub status: CheckStatus,
    /// The check's.
    pub output: String,
}

/// A check's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Found by everyone.
    Passing,
    /// Found by clients that do not ask for passing services alone.
    Warning,
    /// Found by no client that asks for healthy services.
    Critical,
}

/// What became of an update of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckUpdate {
    /// It is the check's state, and its TTL starts anew.
    Updated,
    /// The agent has no such service (any more): register it.
    NotRegistered,
}

#[derive(Serialize)]
struct ServiceDefinition<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Name")]
    name: &'a str,
    #[serde(rename = "Tags")]
    tags: &'a [String],
    #[serde(rename = "Address")]
    address: &'a str,
    #[serde(rename = "Port")]
    port: u16,
    #[serde(rename = "Meta")]
    meta: &'a BTreeMap<String, String>,
    #[serde(rename = "Check")]
    check: CheckDefinition,
}

#[derive(Serialize)]
struct CheckDefinition {
    #[serde(rename = "CheckID")]
    check_id: String,
    #[serde(rename = "Name")]
    name: &'static str,
    #[serde(rename = "TTL")]
    ttl: String,
    #[serde(rename = "DeregisterCriticalServiceAfter")]
    deregister_after: String,
    #[serde(rename = "Status")]
    status: CheckStatus,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckState<'a> {
    status: CheckStatus,
    output: &'a str,
}

/// What the catalog says of the agent that keeps a service's check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The check was set within its TTL.
    Heard,
    /// It was not.
    Silent,
    /// The Consul agent that would notice is not heard of itself, so neither is its machine.
    Lost,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthEntry {
    service: HealthService,
    checks: Vec<HealthCheck>,
}

#[derive(Deserialize)]
struct HealthService {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
struct HealthCheck {
    #[serde(rename = "CheckID")]
    id: String,
    #[serde(rename = "Status")]
    status: String,
    #[serde(rename = "Output", default)]
    output: String,
}

/// Consul's own check of a node: critical once the other Consul agents hear that node's agent no more.
const NODE_CHECK: &str = "serfHealth";
/// How a check's output begins when the check was not set within its TTL (Consul, `agent/checks/check.go`).
const EXPIRED: &str = "TTL expired";

impl HealthEntry {
    fn keeper(&self) -> Keeper {
        let own = check_id(&self.service.id);
        let says = |id: &str, words: &str| {
            self.checks.iter().any(|check| {
                check.id == id && check.status == "critical" && check.output.starts_with(words)
            })
        };
        if says(NODE_CHECK, "") {
            Keeper::Lost
        } else if says(&own, EXPIRED) {
            Keeper::Silent
        } else {
            Keeper::Heard
        }
    }
}

impl Consul {
    /// The keepers of the checks of the services of this name, by the services' ids. Consul leaves out what the token
    /// may not read.
    ///
    /// # Errors
    /// It is unknown.
    pub async fn keepers(&self, name: &str) -> Result<BTreeMap<String, Keeper>, ConsulError> {
        let path = format!("/v1/health/service/{}", encode(name));
        let what = format!("read the health of service {name}");
        let rule = format!("service \"{name}\" {{ policy = \"read\" }}");
        let answer = self
            .wire()
            .send(Call::get(what, path).allowed_by(rule))
            .await?;
        if answer.code != 200 {
            return Err(answer.unexpected());
        }
        let entries = answer.json::<Vec<HealthEntry>>()?;
        let keepers = entries.into_iter().map(|entry| {
            let keeper = entry.keeper();
            (entry.service.id, keeper)
        });
        Ok(keepers.collect())
    }

    /// Registers the service, or changes it where it is registered already, and sets its check.
    ///
    /// Two to four requests, because of three habits of Consul's. A registration carries no output, and a check that is
    /// known keeps its status: so the check is set by a request of its own. Between the two there would be a moment
    /// with the new tags and the old status: so anything but passing is set first, and a master that is critical now is
    /// never a passing one. And an output that changes alone reaches the catalog minutes later, see
    /// [`update_check`](Consul::update_check), unless a registration takes it along: so a registration comes last.
    ///
    /// # Errors
    /// The service may be registered, with this check or the one before: register it again.
    pub async fn register(&self, service: &Registration) -> Result<(), ConsulError> {
        let before = match service.status {
            CheckStatus::Passing => CheckUpdate::NotRegistered,
            CheckStatus::Warning | CheckStatus::Critical => {
                self.update_check(&service.id, service.status, &service.output)
                    .await?
            }
        };
        match before {
            CheckUpdate::Updated => {}
            CheckUpdate::NotRegistered => {
                self.define(service).await?;
                // If it is gone again, the next update says so.
                self.update_check(&service.id, service.status, &service.output)
                    .await?;
            }
        }
        self.define(service).await
    }

    async fn define(&self, service: &Registration) -> Result<(), ConsulError> {
        let definition = ServiceDefinition {
            id: &service.id,
            name: &service.name,
            tags: &service.tags,
            address: &service.address,
            port: service.port,
            meta: &service.meta,
            check: CheckDefinition {
                check_id: check_id(&service.id),
                name: "tarsec",
                ttl: milliseconds(service.ttl),
                deregister_after: milliseconds(service.deregister_after),
                status: service.status,
            },
        };
        let what = format!("register service {}", service.id);
        let body = json(&what, &definition)?;
        let call = Call::put(what, "/v1/agent/service/register", body)
            .query("replace-existing-checks=true")
            .allowed_by(service_rule(&service.name));
        self.wire().send(call).await?.ok()?;
        Ok(())
    }

    /// Sets the check of a service and starts its TTL anew.
    ///
    /// The agent has it at once. The catalog has a new status at once, but an output that changed alone only after the
    /// agent's `check_update_interval`, five minutes unless configured otherwise.
    ///
    /// # Errors
    /// The check may be the new one or the one before.
    pub async fn update_check(
        &self,
        service_id: &str,
        status: CheckStatus,
        output: &str,
    ) -> Result<CheckUpdate, ConsulError> {
        let what = format!("update the check of service {service_id}");
        let output = &plain::line(output);
        let body = json(&what, &CheckState { status, output })?;
        let path = format!("/v1/agent/check/update/{}", encode(&check_id(service_id)));
        let call = Call::put(what, path, body).allowed_by(service_rule_of(service_id));
        let answer = self.wire().send(call).await?;
        // 1.8 says 500 (two ways, with ACLs on and off), later ones 404.
        let unknown = answer.code == 404
            || answer.code == 500
                && (answer.says("does not have associated TTL") || answer.says("Unknown check"));
        if unknown {
            return Ok(CheckUpdate::NotRegistered);
        }
        answer.ok()?;
        Ok(CheckUpdate::Updated)
    }

    /// The ids of the services that any of our agents has registered at the Consul agent beside us for this instance.
    /// Consul leaves out what the token may not read.
    ///
    /// # Errors
    /// They are unknown.
    pub async fn services_of(&self, instance: &str) -> Result<Vec<String>, ConsulError> {
        let what = "look for services of this instance";
        // Filters are known since 1.5 (<https://developer.hashicorp.com/consul/api-docs/agent/service#list-services>).
        let filter = format!("Meta.instance_uuid == \"{instance}\" and tarsec_version in Meta");
        let query = format!("filter={}", encode(&filter));
        let call = Call::get(what, "/v1/agent/services").query(query);
        let answer = self.wire().send(call).await?.ok()?;
        let services = answer.json::<BTreeMap<String, serde::de::IgnoredAny>>()?;
        Ok(services.into_keys().collect())
    }

    /// Takes the service and its check out of the catalog. It is no error if they are gone already.
    ///
    /// # Errors
    /// The service may be there or not.
    pub async fn deregister(&self, service_id: &str) -> Result<(), ConsulError> {
        let path = format!("/v1/agent/service/deregister/{}", encode(service_id));
        let what = format!("deregister service {service_id}");
        let call = Call::put(what, path, Vec::new()).allowed_by(service_rule_of(service_id));
        let answer = self.wire().send(call).await?;
        // 1.8 says 200 with ACLs off and 500 with ACLs on, later ones 404.
        if answer.code == 404 || answer.code == 500 && answer.says("Unknown service") {
            return Ok(());
        }
        answer.ok()?;
        Ok(())
    }
}

fn check_id(service_id: &str) -> String {
    format!("service:{service_id}")
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consul::testing::{self, ROOT_TOKEN};

    fn registration(id: &str, tag: &str, status: CheckStatus) -> Registration {
        Registration {
            id: id.to_owned(),
            name: format!("name-{}", id.len()),
            tags: vec![tag.to_owned()],
            address: String::new(),
            port: 0,
            meta: BTreeMap::from([("term".to_owned(), "7".to_owned())]),
            ttl: Duration::from_secs(60),
            deregister_after: Duration::from_secs(259_200),
            status,
            output: format!("output of {tag}"),
        }
    }

    async fn check(consul: &Consul, id: &str) -> (String, String, String) {
        let checks = consul.ask("/v1/agent/checks").await.value();
        let check = &checks[format!("service:{id}")];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&check["ServiceTags"][0]),
            text(&check["Status"]),
            text(&check["Output"]),
        )
    }

    fn state(tag: &str, status: &str, output: &str) -> (String, String, String) {
        (tag.to_owned(), status.to_owned(), output.to_owned())
    }

    #[tokio::test]
    async fn a_service_is_registered_changed_and_deregistered() {
        let consul = testing::plain().client();
        let id = "tarantool@/var/run/a b.sock";
        for status in [
            CheckStatus::Passing,
            CheckStatus::Critical,
            CheckStatus::Warning,
            CheckStatus::Passing,
        ] {
            let word = serde_json::to_value(status).unwrap();
            let tag = format!("tag of {}", word.as_str().unwrap());
            consul
                .register(&registration(id, &tag, status))
                .await
                .unwrap();
            let expected = state(&tag, word.as_str().unwrap(), &format!("output of {tag}"));
            assert_eq!(check(&consul, id).await, expected);
        }
        let service = consul.ask("/v1/agent/services").await.value()[id].clone();
        assert_eq!(service["Meta"]["term"], "7");
        assert_eq!(
            consul
                .update_check(id, CheckStatus::Warning, "words")
                .await
                .unwrap(),
            CheckUpdate::Updated
        );
        assert_eq!(
            check(&consul, id).await,
            state("tag of passing", "warning", "words")
        );
        consul.deregister(id).await.unwrap();
        let gone = consul
            .update_check(id, CheckStatus::Warning, "words")
            .await
            .unwrap();
        assert_eq!(gone, CheckUpdate::NotRegistered);
        consul.deregister(id).await.unwrap();
    }

    #[tokio::test]
    async fn the_services_of_an_instance_are_those_that_agents_of_ours_registered_for_it() {
        let consul = testing::plain().client();
        let meta = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        for (id, meta) in [
            (
                "old-form",
                meta(&[("instance_uuid", "u-1"), ("tarsec_version", "0.1.0")]),
            ),
            (
                "old-form@u-1",
                meta(&[("instance_uuid", "u-1"), ("tarsec_version", "0.2.0")]),
            ),
            (
                "another's",
                meta(&[("instance_uuid", "u-2"), ("tarsec_version", "0.1.0")]),
            ),
            ("by hand", meta(&[("instance_uuid", "u-1")])),
        ] {
            let service = Registration {
                meta,
                ..registration(id, "replica", CheckStatus::Passing)
            };
            consul.register(&service).await.unwrap();
        }
        let found = consul.services_of("u-1").await.unwrap();
        assert_eq!(found, ["old-form", "old-form@u-1"]);
        assert_eq!(consul.services_of("u-3").await.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn a_new_service_that_is_critical_never_passes() {
        let consul = testing::plain().client();
        let id = "tarantool@new-and-critical";
        consul
            .register(&registration(id, "master", CheckStatus::Critical))
            .await
            .unwrap();
        assert_eq!(
            check(&consul, id).await,
            state("master", "critical", "output of master")
        );
    }

    #[tokio::test]
    async fn the_catalog_has_what_was_registered_within_seconds() {
        let consul = testing::plain().client();
        let mut service = registration(
            "tarantool@with-no-address-of-its-own",
            "replica",
            CheckStatus::Passing,
        );
        for output in ["following", "following another"] {
            service.output = output.to_owned();
            consul.register(&service).await.unwrap();
            let found = in_catalog(&consul, &service.name, output).await;
            assert_eq!(found["Node"]["Address"], "127.0.0.1");
            assert_eq!(found["Service"]["Address"], "");
        }
    }

    /// The service's entry, as soon as its check has this output there.
    async fn in_catalog(consul: &Consul, name: &str, output: &str) -> serde_json::Value {
        for _ in 0..100 {
            let found = consul
                .ask(&format!("/v1/health/service/{name}"))
                .await
                .value();
            let checks = found[0]["Checks"].as_array().into_iter().flatten();
            if checks.into_iter().any(|check| check["Output"] == output) {
                return found[0].clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{output:?} is not in the catalog after 5 s");
    }

    #[tokio::test]
    async fn unknown_services_are_unknown_with_acls_too_and_strangers_are_denied() {
        let agent = testing::with_acls();
        let root = agent.client_with_token(ROOT_TOKEN);
        let unknown = root
            .update_check("nobody", CheckStatus::Passing, "")
            .await
            .unwrap();
        assert_eq!(unknown, CheckUpdate::NotRegistered);
        root.deregister("nobody").await.unwrap();
        let service = registration("tarantool@acl", "master", CheckStatus::Passing);
        root.register(&service).await.unwrap();
        for stranger in [
            agent.client(),
            agent.client_with_token("00000000-0000-0000-0000-00000000dead"),
        ] {
            assert!(stranger.register(&service).await.unwrap_err().is_denied());
            let denied = stranger
                .update_check(&service.id, CheckStatus::Critical, "")
                .await
                .unwrap_err();
            assert!(denied.is_denied(), "{denied}");
            assert!(
                stranger
                    .deregister(&service.id)
                    .await
                    .unwrap_err()
                    .is_denied()
            );
        }
    }
}
