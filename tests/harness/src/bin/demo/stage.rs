//! What stands on the stage, and how to look at it.

use std::time::Duration;

use tarsec_harness::{
    Agent, Consul, Error, Gap, History, LogLine, Moment, ReplicaSet, Result, World, Writers,
    eventually,
};

use super::screen::Row;

/// For what takes moments on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// `MASTER_LEASE` in the harness's defaults.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) set: ReplicaSet,
    pub(crate) agents: Vec<Agent>,
    pub(crate) writers: Writers,
}

/// An error and what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Something is not as it should be.
pub(crate) fn wrong(what: impl Into<String>) -> Error {
    Error::Malformed { what: what.into() }
}

impl Stage {
    /// Starts agents and writers beside what runs already.
    pub(crate) async fn set(world: &World, consul: &Consul, set: ReplicaSet) -> Result<Self> {
        let agents = world.agents(&set, consul).await?;
        let writers = set
            .writers()
            .probe_interval(Duration::from_millis(2))
            .start();
        Ok(Self {
            set,
            agents,
            writers,
        })
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        self.set[index].name()
    }

    /// Waits until an agent has logged this since then.
    pub(crate) async fn logged(
        &self,
        agent: usize,
        since: Moment,
        message: &str,
        fits: impl Fn(&LogLine) -> bool,
    ) -> Result<(Moment, LogLine)> {
        let what = format!("the agent of {} to say '{message}'", self.name(agent));
        eventually(SOON, &what, async || {
            let lines = self.agents[agent]
                .logs_since(since)
                .map_err(|error| chain(&error))?;
            let line = lines
                .iter()
                .find(|line| line.message() == message && fits(line));
            line.and_then(|line| Some((line.at()?, line.clone())))
                .ok_or_else(|| {
                    lines
                        .last()
                        .map_or("nothing".to_owned(), |line| line.message().to_owned())
                })
        })
        .await
    }

    /// Waits until another instance than `old` accepts writes, and says which.
    pub(crate) async fn successor(&self, old: usize) -> Result<usize> {
        let before = self.writers.accepted();
        eventually(SOON, "another instance to accept a write", async || {
            let now = self.writers.accepted();
            (0..now.len())
                .find(|index| *index != old && now[*index] > before[*index])
                .ok_or_else(|| format!("accepted so far: {now:?}"))
        })
        .await
    }

    /// When `instance` first accepted a write after `since`, as its writer saw it.
    pub(crate) fn first_write(&self, instance: usize, since: Moment) -> Result<Moment> {
        let began = self.writers.began_at();
        let history = self.writers.so_far();
        let accepted = history
            .writes
            .iter()
            .filter(|write| write.is_accepted() && write.instance == instance);
        let answered = accepted.filter_map(|write| Some(began + write.answered?));
        answered
            .filter(|moment| *moment > since)
            .min()
            .ok_or_else(|| wrong("the first write's answer"))
    }

    /// The longest time without an accepted write since then.
    pub(crate) fn longest_gap(&self, since: Moment) -> Result<Gap> {
        let began = self.writers.began_at();
        let history = self.writers.so_far();
        // Half a second before, so that the last write before the blow is among them.
        let writes = history
            .writes
            .into_iter()
            .filter(|write| (began + write.sent).ms_since(since) > -500.0)
            .collect();
        let act = History { writes, ..history };
        let gap = act.judge().longest_gap;
        gap.ok_or_else(|| wrong("how long no write was accepted: there were none"))
    }

    /// One line per instance.
    pub(crate) async fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (index, instance) in self.set.iter().enumerate() {
            let asked = instance.eval(STANDING, &[]);
            let standing = tokio::time::timeout(Duration::from_millis(500), asked).await;
            let (role, term) = match standing {
                Ok(Ok(values)) => match values.as_slice() {
                    [read_only, term] if read_only.as_bool() == Some(true) => {
                        ("replica", term.as_u64())
                    }
                    [_, term] => ("MASTER", term.as_u64()),
                    _ => ("?", None),
                },
                Ok(Err(_)) if !instance.process().is_running() => ("dead", None),
                Ok(Err(_)) => ("starting", None),
                Err(_) => ("frozen", None),
            };
            rows.push(Row {
                instance: instance.name().to_owned(),
                role,
                term,
                words: self.words(index),
            });
        }
        rows
    }

    /// What an agent says of the state of things, with names for addresses.
    pub(crate) fn words(&self, agent: usize) -> String {
        if !self.agents[agent].process().is_running() {
            return "(this agent is dead)".to_owned();
        }
        let lines = self.agents[agent].logs().unwrap_or_default();
        let last = lines
            .iter()
            .rfind(|line| line.message() == "reason changed");
        let words = last.and_then(|line| line.field("to").as_str());
        let words = words.unwrap_or("(nothing yet)");
        // The table's own column says as much.
        let words = words
            .strip_prefix("replica: ")
            .or_else(|| words.strip_prefix("master: "));
        let words = words
            .or_else(|| last.and_then(|line| line.field("to").as_str()))
            .unwrap_or("(nothing yet)");
        // The timeline has said which process that was.
        let words = words.split(": process ").next().unwrap_or(words);
        self.set.iter().fold(words.to_owned(), |words, instance| {
            words.replace(instance.addr(), instance.name())
        })
    }

    /// Checks that one instance is writable and is the one expected.
    pub(crate) async fn expect_master(&self, expected: usize) -> Result<()> {
        let master = self.set.wait_for_master(SOON).await?;
        if master == expected {
            Ok(())
        } else {
            let (master, expected) = (self.name(master), self.name(expected));
            Err(wrong(format!(
                "why {master} is writable: {expected} should be"
            )))
        }
    }

    /// Waits until each agent says what it says of a replica set at rest, and the members follow each other.
    pub(crate) async fn rest(&self, master: usize) -> Result<()> {
        self.set.wait_for_mesh(SOON).await?;
        let following = format!("the master is {}", self.name(master));
        eventually(SOON, "the agents to agree on the master", async || {
            for index in (0..self.agents.len()).filter(|index| *index != master) {
                let words = self.words(index);
                if words != following {
                    return Err(format!("{} says: {words}", self.name(index)));
                }
            }
            Ok(())
        })
        .await
    }
}

/// The guard's memory of terms is a replica's, too.
const STANDING: &str = "
local guard = rawget(_G, 'tarsec_guard')
return box.info.ro, guard and guard.state and guard.state.term or nil
";
