//! Tarantool 3's declarative configuration of a replica set: one file that all its instances read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use super::instance::Instance;
use crate::error::{Error, Result};
use crate::process::lock;
use crate::world::Shared;

const APP_LUA: &str = include_str!("../../lua/declared.lua");

/// The group that has the replica set.
const GROUP: &str = "storages";

/// The configuration of a replica set's instances: `tarantool --name a0 --config a.yaml`.
///
/// The group is called `storages`, the replica set `a`, its instances `a0`, `a1` and so on. The file is written as JSON,
/// which is YAML, too. Changes are in the file at once; an instance knows of them after [`Instance::reload`] or a
/// start.
#[derive(Debug)]
pub struct Declaration {
    path: PathBuf,
    replicaset: String,
    content: Mutex<Value>,
}

impl Declaration {
    pub(crate) fn new(
        shared: &Shared,
        letter: char,
        uuid: &str,
        members: &[(String, String)],
        over: &Value,
    ) -> Result<Self> {
        let replicaset = letter.to_string();
        let app = shared.write("declared.lua", APP_LUA)?;
        let instances = members.iter().enumerate().map(|(index, (uuid, addr))| {
            let instance = json!({
                "database": {"instance_uuid": uuid},
                "iproto": {"listen": [{"uri": addr}]},
            });
            (format!("{letter}{index}"), instance)
        });
        let set = json!({
            "database": {"replicaset_uuid": uuid},
            "instances": Map::from_iter(instances),
        });
        let (agent, harness) = (Instance::agent_login(), Instance::login());
        let mut content = json!({
            "credentials": {"users": {
                "replicator": {"password": "replication-secret", "roles": ["replication"]},
                agent.user: {
                    "password": agent.password,
                    "privileges": [{"permissions": ["execute"], "universe": true}],
                },
                harness.user: {"password": harness.password, "roles": ["super"]},
            }},
            "iproto": {"advertise": {"peer": {"login": "replicator"}}},
            "replication": {"failover": "supervised"},
            "process": {"work_dir": shared.dir.join("{{ instance_name }}")},
            "memtx": {"memory": 64 << 20},
            "app": {"file": app},
            "groups": {GROUP: {"replicasets": {replicaset.clone(): set}}},
        });
        merge(&mut content, over);
        let path = shared.dir.join(format!("{letter}.yaml"));
        let declaration = Self {
            path,
            replicaset,
            content: Mutex::new(content),
        };
        declaration.write()?;
        Ok(declaration)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The replica set's name.
    #[must_use]
    pub fn replicaset(&self) -> &str {
        &self.replicaset
    }

    /// Writes these values over those of the cluster; `null` removes a value.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn change(&self, over: &Value) -> Result<()> {
        merge(&mut lock(&self.content), over);
        self.write()
    }

    /// Writes these values over those of one instance.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn change_instance(&self, name: &str, over: &Value) -> Result<()> {
        self.change(&json!({"groups": {GROUP: {"replicasets": {&self.replicaset: {"instances": {name: over}}}}}}))
    }

    pub(crate) fn args(&self, name: &str) -> Vec<OsString> {
        let path = self.path.clone().into();
        vec!["--name".into(), name.into(), "--config".into(), path]
    }

    fn write(&self) -> Result<()> {
        let text = format!("{:#}\n", lock(&self.content));
        // By another name first: an instance may read it at any moment.
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).map_err(Error::io(format!("write {}", new.display())))?;
        let renamed = std::fs::rename(&new, &self.path);
        renamed.map_err(Error::io(format!("write {}", self.path.display())))
    }
}

/// Objects are merged, anything else is replaced, `null` removes.
fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                if value.is_null() {
                    into.remove(name);
                } else {
                    merge(into.entry(name).or_insert_with(|| json!({})), value);
                }
            }
        }
        (into, over) => *into = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::merge;

    #[test]
    fn a_change_replaces_what_it_names_and_nothing_else() {
        let mut content = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        merge(
            &mut content,
            &json!({"a": {"b": null, "e": {"f": 3}}, "d": [4]}),
        );
        assert_eq!(content, json!({"a": {"c": 2, "e": {"f": 3}}, "d": [4]}));
    }
}
