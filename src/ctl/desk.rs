//! Which replica set is meant, and what the operator says to a question.

use std::io::{BufRead, ErrorKind, Write};

use super::outcome::Outcome;
use super::reader::Reader;
use super::screen::Paper;
use super::view::{ClusterView, MemberView, SetView};
use super::words::{clean, wrapped};
use super::{Ended, agents};
use crate::config::OperatorConfig;
use crate::consul::{Consul, ConsulError};

/// Where a command speaks and listens.
pub struct Terminal<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub errors: &'a mut dyn Write,
    /// Standard input, where it is a terminal.
    pub answers: Option<&'a mut dyn BufRead>,
    /// How wide a screen may be, and whether it may have colours.
    pub paper: Paper,
    /// Standard output is a terminal, so a screen may be drawn over the last one.
    pub draws: bool,
    /// The reader of standard output has gone.
    pub unread: bool,
}

impl Terminal<'_> {
    /// A reader that has gone has read what it wanted (`| head`, `| true`): what was asked for is done all the same.
    pub(super) fn print(&mut self, text: &str) -> Result<(), Ended> {
        let written = self.out.write_all(text.as_bytes());
        match written.and_then(|()| self.out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.unread = true;
                Ok(())
            }
            Err(error) => {
                let why = format!("could not print: {error}");
                Err(Ended::new(Outcome::Failed, why))
            }
        }
    }

    /// One sentence about what is being done.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Ended> {
        self.print(&format!("{}\n", clean(text)))
    }

    /// Says something that is of no use to a program that reads the output.
    pub(super) fn whisper(&mut self, text: &str) {
        let _ = writeln!(self.errors, "{}", clean(text));
    }

    pub(super) fn complain(self, ended: &Ended) -> Outcome {
        let _ = writeln!(self.errors, "tarsec: {}", clean(&ended.why));
        ended.outcome
    }

    /// Goes on only at the operator's word.
    pub(super) fn ask(&mut self, question: &str, yes: bool) -> Result<(), Ended> {
        if yes {
            return Ok(());
        }
        let Some(answers) = &mut self.answers else {
            let why = "there is no terminal to ask at, say --yes if this is meant";
            return Err(Ended::new(Outcome::Usage, why));
        };
        let question = wrapped("", 0, question, self.paper.width());
        let asked =
            write!(self.errors, "{question}Go on? [y/N] ").and_then(|()| self.errors.flush());
        let mut answer = String::new();
        let heard = asked.and_then(|()| answers.read_line(&mut answer));
        match (heard, answer.trim().to_ascii_lowercase().as_str()) {
            (Ok(_), "y" | "yes") => Ok(()),
            (Ok(_) | Err(_), _) => Err(Ended::new(
                Outcome::Declined,
                "nothing was done, as the answer was not yes",
            )),
        }
    }
}

/// What every command works with.
pub(super) struct Desk<'a> {
    pub(super) reader: Reader,
    pub(super) consul: Consul,
    pub(super) config: OperatorConfig,
    pub(super) terminal: Terminal<'a>,
}

impl Desk<'_> {
    /// The cluster as it is. A cluster without keys is told from a cluster that the token may not read.
    pub(super) async fn look(&mut self) -> Result<ClusterView, ConsulError> {
        let view = self.reader.look().await?;
        if view.replicasets.is_empty() {
            let prefix = &self.reader.space().prefix;
            self.consul.check_readable(prefix).await?;
        }
        Ok(view)
    }

    /// The same view, with whether the agents that wrote its words still live.
    pub(super) async fn with_agents(&self, view: ClusterView) -> ClusterView {
        let keepers = agents::listen(&self.consul, &view).await;
        view.with_agents(&keepers)
    }
}

/// The operator's name, which is written beside the order for later readers.
pub(super) fn operator() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.unwrap_or_else(|| "somebody".to_owned());
    clean(&format!("{name}@{}", host.trim()))
}

impl ClusterView {
    /// The replica set that is meant: by its UUID or the beginning of it, by a member's name or UUID, by a part of these
    /// that no other has; by nothing where there is but one.
    pub(super) fn choose(&self, name: Option<&str>) -> Result<&SetView, Ended> {
        let known = || {
            let all = self.replicasets.iter().take(8);
            let uuids: Vec<&str> = all.map(|set| set.replicaset.as_str()).collect();
            let more = if self.replicasets.len() > 8 {
                ", …"
            } else {
                ""
            };
            format!("{}{more}", uuids.join(", "))
        };
        let cluster = &self.cluster;
        let unclear = |why: String| Err(Ended::new(Outcome::Usage, why));
        let Some(name) = name else {
            return match self.replicasets.as_slice() {
                [only] => Ok(only),
                [] => Err(Ended::new(
                    Outcome::NoMaster,
                    format!("the cluster {cluster} has no replica set"),
                )),
                [_, _, ..] => unclear(format!(
                    "which replica set? The cluster {cluster} has {}",
                    known()
                )),
            };
        };
        if let Some(set) = self.set(name) {
            return Ok(set);
        }
        let exact = self.replicasets.iter().filter(|set| set.answers_to(name));
        let mut found: Vec<&SetView> = exact.collect();
        if found.is_empty() && !name.is_empty() {
            found = self
                .replicasets
                .iter()
                .filter(|set| set.has(name))
                .collect();
        }
        match found.as_slice() {
            [set] => Ok(set),
            [_, _, ..] => unclear(format!("{name} means several replica sets: {}", known())),
            [] if self.replicasets.is_empty() => unclear(format!(
                "{name} is no replica set: the cluster {cluster} has none"
            )),
            [] => unclear(format!(
                "{name} is neither a replica set nor a member: the cluster {cluster} has {}",
                known()
            )),
        }
    }
}

impl SetView {
    fn answers_to(&self, name: &str) -> bool {
        let is_beginning = !name.is_empty() && self.replicaset.starts_with(name);
        is_beginning || self.members.iter().any(|member| member.is_called(name))
    }

    fn has(&self, part: &str) -> bool {
        let mut members = self.members.iter();
        self.replicaset.contains(part) || members.any(|member| member.has(part))
    }

    /// The member that is meant: by its name or its UUID, or by a part of them that no other member has.
    pub(super) fn member(&self, name: &str) -> Result<&MemberView, Ended> {
        let exact = self.members.iter().filter(|member| member.is_called(name));
        let mut found: Vec<&MemberView> = exact.collect();
        if found.is_empty() && !name.is_empty() {
            let members = self.members.iter();
            found = members.filter(|member| member.has(name)).collect();
        }
        let names = |members: &mut dyn Iterator<Item = &MemberView>| {
            let names: Vec<&str> = members.map(|member| member.name.as_str()).collect();
            names.join(", ")
        };
        let set = &self.replicaset;
        let why = match found.as_slice() {
            [member] => return Ok(member),
            [] => format!(
                "{name} is no member of {set}, which has {}",
                names(&mut self.members.iter())
            ),
            [_, _, ..] => format!(
                "{name} means several members of {set}: {}",
                names(&mut found.iter().copied())
            ),
        };
        Err(Ended::new(Outcome::Refused, why))
    }

    /// The name by which operators know an instance.
    pub(super) fn name_of(&self, instance: &str) -> String {
        let mut members = self.members.iter();
        let member = members.find(|member| member.instance == instance);
        member.map_or(instance, |member| &member.name).to_owned()
    }

    /// The holder's name, for sentences.
    pub(super) fn holder_name(&self) -> &str {
        self.holder.as_ref().map_or("nobody", |holder| &holder.name)
    }
}

impl MemberView {
    fn is_called(&self, name: &str) -> bool {
        [&*self.name, &*self.instance, &*self.uri].contains(&name)
    }

    fn has(&self, part: &str) -> bool {
        let known = [&self.name, &self.instance, &self.uri];
        known.iter().any(|text| text.contains(part))
    }
}

#[cfg(test)]
mod tests;
