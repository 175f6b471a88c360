//! Members that fall behind on purpose, and catch up again.

use std::time::Duration;

use serde_json::Value;

use super::replica_set::ReplicaSet;
use crate::error::{Error, Result, chain};
use crate::proxy::Fault;
use crate::wait::eventually;

impl ReplicaSet {
    /// Holds back all rows that a member would get from the others; needs
    /// [`ReplicaSetOptions::linked`](crate::ReplicaSetOptions::linked). Its connections stay, so that it counts as
    /// following until four `REPLICATION_TIMEOUT`s (a variable of the instances, 1 s by default) have passed. Rows that
    /// were sent before a sender died arrive after [`ReplicaSet::let_catch_up`], as TCP would have it.
    ///
    /// # Errors
    /// Without links.
    pub async fn hold_back(&self, follower: usize) -> Result<()> {
        self.set_links(follower, Fault::BlackHole).await
    }

    /// Cuts a member off from all that it replicates from: it does not follow any more, and rows that it has not got by
    /// now are gone with their sender. Needs links as [`ReplicaSet::hold_back`] does.
    ///
    /// # Errors
    /// Without links.
    pub async fn cut_off(&self, follower: usize) -> Result<()> {
        self.set_links(follower, Fault::Cut).await
    }

    /// Ends [`ReplicaSet::hold_back`] and [`ReplicaSet::cut_off`].
    ///
    /// # Errors
    /// Without links.
    pub async fn let_catch_up(&self, follower: usize) -> Result<()> {
        self.set_links(follower, Fault::Pass).await
    }

    /// Takes a member's replication away in its `box.cfg`, where there are no links.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn unfollow(&self, follower: usize) -> Result<()> {
        let lua =
            "rawset(_G, 'harness_followed', rawget(_G, 'harness_followed') or box.cfg.replication)
            box.cfg{replication = {}}";
        self[follower].eval(lua, &[]).await.map(|_| ())
    }

    /// Ends [`ReplicaSet::unfollow`].
    ///
    /// # Errors
    /// When the member does not answer, or was not told to unfollow.
    pub async fn follow_again(&self, follower: usize) -> Result<()> {
        let lua = "box.cfg{replication = assert(rawget(_G, 'harness_followed'), 'it follows')}
            rawset(_G, 'harness_followed', nil)";
        self[follower].eval(lua, &[]).await.map(|_| ())
    }

    /// How many rows `source` has that `follower` lacks, local ones aside.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub async fn rows_behind(&self, follower: usize, source: usize) -> Result<u64> {
        let behind = self[follower].standing().await?.vclock;
        let ahead = self[source].standing().await?.vclock;
        let lacking = ahead.iter().filter(|(id, _)| *id != 0).map(|(id, lsn)| {
            let own = behind.iter().find(|(other, _)| other == id);
            lsn.saturating_sub(own.map_or(0, |(_, lsn)| *lsn))
        });
        Ok(lacking.sum())
    }

    /// Waits until `follower` lacks at least so many rows of `source`; the story has to write them.
    ///
    /// # Errors
    /// [`Error::Timeout`], with how many it lacks.
    pub async fn wait_for_lag(
        &self,
        follower: usize,
        source: usize,
        rows: u64,
        deadline: Duration,
    ) -> Result<u64> {
        let what = format!("{} to be {rows} rows behind", self[follower].name);
        eventually(deadline, &what, async || {
            match self.rows_behind(follower, source).await {
                Ok(behind) if behind >= rows => Ok(behind),
                Ok(behind) => Err(behind.to_string()),
                Err(error) => Err(chain(&error)),
            }
        })
        .await
    }

    /// Waits until `follower` has every row of `source`; while there are writers, those of some moment.
    ///
    /// # Errors
    /// [`Error::Timeout`], with how many it lacks.
    pub async fn wait_until_level(
        &self,
        follower: usize,
        source: usize,
        deadline: Duration,
    ) -> Result<()> {
        let what = format!("{} to catch up", self[follower].name);
        eventually(deadline, &what, async || {
            match self.rows_behind(follower, source).await {
                Ok(0) => Ok(()),
                Ok(behind) => Err(format!("it lacks {behind} rows")),
                Err(error) => Err(chain(&error)),
            }
        })
        .await
    }

    /// Writes so many rows at a member that is writable, so that a member that is behind gets further behind.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn write_rows(&self, at: usize, writer: &str, rows: u64) -> Result<()> {
        let lua = "local writer, rows = ...
            local first = box.space.journal.index.primary:count({writer})
            for seq = first, first + rows - 1 do journal_write(writer, seq) end";
        let args = [Value::from(writer), Value::from(rows)];
        self[at].eval(lua, &args).await.map(|_| ())
    }

    async fn set_links(&self, follower: usize, fault: Fault) -> Result<()> {
        let links = &self[follower].links;
        if links.is_empty() && self.len() > 1 {
            let name = &self[follower].name;
            return Err(Error::malformed(format!(
                "how to hold back {name}: its replica set has no links"
            )));
        }
        for (_, link) in links {
            link.set(fault).await?;
        }
        Ok(())
    }
}
