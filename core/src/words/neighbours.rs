//! Who else is found under the name of our service in Consul's catalog.
//!
//! Clients look for *the* master, or for a router of *their* cluster, by a name alone. Another one under the same name is
//! another database, and Consul sends a client now here, now there. The masters of one vshard cluster are no such case: its
//! clients come by its routers, and one name for all masters is a list of them by design. Whoever wants them apart puts
//! `{replicaset}` into the name.

use serde::Serialize;

/// Those that are found under a name, our own instance among them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Neighbours {
    /// The service's.
    pub name: String,
    /// Our `CLUSTER_NAME`.
    pub cluster: String,
    /// Masters where it is a master's name, routers where it is a router's; those whose checks are critical are not found.
    pub found: Vec<Neighbour>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct Neighbour {
    /// Instance UUID; `None`: no agent of ours registered it.
    pub instance: Option<String>,
    /// Where clients are sent.
    pub place: String,
    /// Its `CLUSTER_NAME`; `None`: its agent does not say.
    pub cluster: Option<String>,
    /// Its replica set's UUID.
    pub replicaset: Option<String>,
}

impl Neighbour {
    fn describe(&self) -> String {
        let cluster = self.cluster.as_ref();
        let whose = match (&self.instance, cluster, &self.replicaset) {
            (None, _, _) => "which no agent registered".to_owned(),
            (Some(_), Some(cluster), Some(set)) => {
                format!("of cluster {cluster}, replica set {set}")
            }
            (Some(_), Some(cluster), None) => format!("of cluster {cluster}"),
            (Some(_), None, Some(set)) => format!("of replica set {set}"),
            (Some(_), None, None) => "of another cluster".to_owned(),
        };
        format!("{}, {whose}", self.place)
    }
}

impl Neighbours {
    fn is_other_cluster(&self, neighbour: &Neighbour) -> bool {
        let cluster = neighbour.cluster.as_ref();
        cluster.is_some_and(|cluster| *cluster != self.cluster)
    }

    /// What is not as it should be for a master of this replica set, in words.
    pub(crate) fn about_master(&self, replicaset: &str, has_vshard: bool) -> Option<String> {
        let twice = self
            .found
            .iter()
            .find(|it| self.is_other_cluster(it) && it.replicaset.as_deref() == Some(replicaset));
        if let Some(twin) = twice {
            let cluster = twin.cluster.as_deref().unwrap_or_default();
            return Some(format!(
                "agents with another CLUSTER_NAME look after this replica set, too: {}, is master in cluster {cluster}; \
                 each cluster has a lock of its own, so two may be writable",
                twin.place
            ));
        }
        let is_foreign = |it: &&Neighbour| {
            let other_set = it.replicaset.as_deref() != Some(replicaset);
            self.is_other_cluster(it) || (other_set && !has_vshard) || it.instance.is_none()
        };
        self.about(
            "master",
            "{cluster} or {replicaset}",
            self.found.iter().filter(is_foreign),
        )
    }

    /// The same for a router.
    pub(crate) fn about_router(&self) -> Option<String> {
        let is_foreign = |it: &&Neighbour| self.is_other_cluster(it) || it.instance.is_none();
        self.about("router", "{cluster}", self.found.iter().filter(is_foreign))
    }

    fn about<'a>(
        &self,
        role: &str,
        mend: &str,
        mut foreign: impl Iterator<Item = &'a Neighbour>,
    ) -> Option<String> {
        let first = foreign.next()?;
        let more = match foreign.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some(format!(
            "clients that look for the {role} as {} also find {}{more}: put {mend} into CONSUL_SERVICE_PREFIX or \
             CONSUL_SERVICE_NAME",
            self.name,
            first.describe()
        ))
    }
}
