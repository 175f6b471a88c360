//! What every command works with.

use super::agents;
use super::reader::Reader;
use super::terminal::Terminal;
use super::view::ClusterView;
use super::words::clean;
use crate::config::OperatorConfig;
use crate::consul::{Consul, ConsulError};

/// Consul, the settings and the terminal of one command.
pub(super) struct Context<'a> {
    pub(super) reader: Reader,
    pub(super) consul: Consul,
    pub(super) config: OperatorConfig,
    pub(super) terminal: Terminal<'a>,
}

impl Context<'_> {
    /// The cluster as it is. One without keys is told from one that the token may not read.
    pub(super) async fn look(&mut self) -> Result<ClusterView, ConsulError> {
        let view = self.reader.look().await?;
        if view.replicasets.is_empty() {
            let keys = self.config.keys();
            let pause = keys.pause();
            self.consul.check_readable(keys.prefix(), &pause).await?;
        }
        Ok(view)
    }

    /// The same with whether the agents live that it was told by.
    pub(super) async fn with_agents(&self, view: ClusterView) -> ClusterView {
        let keepers = agents::listen(&self.consul, &view).await;
        view.with_agents(&keepers)
    }
}

/// Who gives the order, for those who wonder later.
pub(super) fn operator() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.unwrap_or_else(|| "somebody".to_owned());
    clean(&format!("{name}@{}", host.trim()))
}
