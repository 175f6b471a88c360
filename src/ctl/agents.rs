//! Whether the agents that wrote a view's words still live: their checks in Consul's catalog say so.

use std::collections::{BTreeMap, BTreeSet};

use super::notes;
use super::view::{AgentState, ClusterView, MemberView, SetView};
use crate::consul::{Consul, Keeper};
use crate::decide::board::ServiceRef;

/// The keeper of each service's check, by the service's id.
pub(super) type Keepers = BTreeMap<String, Keeper>;

/// Looks all agents of a view up. What cannot be read is unknown, which is no reason to keep the rest back.
pub(super) async fn listen(consul: &Consul, view: &ClusterView) -> Keepers {
    let members = view.replicasets.iter().flat_map(|set| &set.members);
    let services = members.filter_map(|member| member.service.as_ref());
    let routers = view.routers.iter().filter_map(|it| it.service.as_ref());
    let names: BTreeSet<&String> = services.chain(routers).flat_map(|it| &it.names).collect();
    let mut keepers = Keepers::new();
    for name in names {
        keepers.extend(consul.keepers(name).await.unwrap_or_default());
    }
    keepers
}

/// Where nobody is in the catalog, the token may just not be allowed to read it.
fn state_of(service: Option<&ServiceRef>, keepers: &Keepers) -> Option<AgentState> {
    match keepers.get(&service?.id) {
        Some(Keeper::Heard) => Some(AgentState::Alive),
        Some(Keeper::Silent) => Some(AgentState::Silent),
        Some(Keeper::Lost) => Some(AgentState::MachineSilent),
        None => (!keepers.is_empty()).then_some(AgentState::Unregistered),
    }
}

fn about(name: &str, state: AgentState) -> Option<String> {
    let what = match state {
        AgentState::Alive => return None,
        AgentState::Silent => "is not heard of any more",
        AgentState::MachineSilent => "is not heard of any more, nor is the Consul agent beside it",
        AgentState::Unregistered => {
            "is not in Consul's catalog: it was stopped, or silent for long"
        }
    };
    Some(format!("the agent of {name} {what}"))
}

fn about_member(member: &MemberView) -> Option<String> {
    let words = about(&member.name, member.agent?)?;
    Some(match member.agent? {
        AgentState::Unregistered => {
            format!("{words}; if its instance is gone for good, delete its row in _cluster")
        }
        AgentState::Alive | AgentState::Silent | AgentState::MachineSilent => words,
    })
}

impl ClusterView {
    /// The same with what is known of the agents.
    pub(super) fn with_agents(mut self, keepers: &Keepers) -> Self {
        for set in &mut self.replicasets {
            set.hear(keepers);
        }
        let routers = self.routers.iter().filter_map(|router| {
            let state = state_of(router.service.as_ref(), keepers)?;
            about(&format!("router {}", router.name), state)
        });
        self.notes.extend(routers);
        self.judge();
        self
    }
}

impl SetView {
    fn hear(&mut self, keepers: &Keepers) {
        for member in &mut self.members {
            member.agent = state_of(member.service.as_ref(), keepers);
        }
        let has_left = |member: &MemberView| self.is_unnamed(member) && !member.is_looked_after();
        let left: Vec<bool> = self.members.iter().map(has_left).collect();
        for (member, left) in self.members.iter_mut().zip(left) {
            member.left = left;
        }
        self.notes.extend(notes::of_unnamed(self));
        let stayed = self.members.iter().filter(|member| !member.left);
        let notes: Vec<String> = stayed.filter_map(about_member).collect();
        self.notes.extend(notes);
        self.verdict = self.judge();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::toys::{Keys, NOW, member, name, uuid};
    use crate::ctl::view::Verdict;
    use crate::decide::router::RouterKey;

    fn id(number: u64) -> String {
        format!("tarantool@{}", name(number))
    }

    fn keepers(of: &[(u64, Keeper)]) -> Keepers {
        of.iter().map(|(number, it)| (id(*number), *it)).collect()
    }

    /// The healthy replica set of three.
    fn heard(of: &[(u64, Keeper)]) -> ClusterView {
        Keys::healthy().view().with_agents(&keepers(of))
    }

    fn agent(view: &ClusterView, number: u64) -> Option<AgentState> {
        let mut members = view.replicasets[0].members.iter();
        members
            .find(|member| member.instance == uuid(number))?
            .agent
    }

    #[test]
    fn agents_that_are_heard_of_are_no_news() {
        let view = heard(&[(1, Keeper::Heard), (2, Keeper::Heard), (3, Keeper::Heard)]);
        assert_eq!(agent(&view, 2), Some(AgentState::Alive));
        assert_eq!(view, {
            let mut same = Keys::healthy().view();
            for member in &mut same.replicasets[0].members {
                member.agent = Some(AgentState::Alive);
            }
            same
        });
    }

    #[test]
    fn an_agent_that_is_not_heard_of_makes_its_replica_set_unwell_and_is_named() {
        let view = heard(&[(1, Keeper::Heard), (2, Keeper::Silent)]);
        assert_eq!(agent(&view, 2), Some(AgentState::Silent));
        assert_eq!(agent(&view, 3), Some(AgentState::Unregistered));
        assert_eq!(view.verdict, Verdict::Unwell);
        let notes = view.replicasets[0].notes.join("\n");
        let silent = format!("the agent of {} is not heard of any more", name(2));
        let gone = format!("the agent of {} is not in Consul's catalog", name(3));
        assert!(notes.contains(&silent) && notes.contains(&gone), "{notes}");
        let view = heard(&[(1, Keeper::Heard), (2, Keeper::Lost), (3, Keeper::Heard)]);
        assert_eq!(agent(&view, 2), Some(AgentState::MachineSilent));
        assert_eq!(view.verdict, Verdict::Unwell);
    }

    #[test]
    fn a_member_that_left_is_no_problem_and_one_that_runs_is() {
        let mut gone = member(4);
        gone.health = "critical".to_owned();
        let heard = |fourth: Option<Keeper>| {
            let mut known = vec![(1, Keeper::Heard), (2, Keeper::Heard), (3, Keeper::Heard)];
            known.extend(fourth.map(|it| (4, it)));
            let view = Keys::healthy().member(&gone).view();
            view.with_agents(&keepers(&known))
        };
        let left = |view: &ClusterView| view.replicasets[0].members.iter().any(|it| it.left);
        for fourth in [None, Some(Keeper::Silent), Some(Keeper::Lost)] {
            let view = heard(fourth);
            assert_eq!((view.verdict, left(&view)), (Verdict::Well, true));
            assert_eq!(view.replicasets[0].notes, [""; 0]);
        }
        let view = heard(Some(Keeper::Heard));
        assert_eq!((view.verdict, left(&view)), (Verdict::Unwell, false));
        let known = format!("{} is critical", name(4));
        assert_eq!(view.replicasets[0].notes, [known]);
    }

    #[test]
    fn a_member_that_the_master_knows_has_not_left() {
        let view = heard(&[(1, Keeper::Heard), (2, Keeper::Heard)]);
        let notes = view.replicasets[0].notes.join("\n");
        assert!(notes.contains("delete its row in _cluster"), "{notes}");
        assert_eq!(view.verdict, Verdict::Unwell);
    }

    #[test]
    fn a_catalog_that_may_not_be_read_says_nothing() {
        let view = heard(&[]);
        assert_eq!(agent(&view, 2), None);
        assert_eq!(view, Keys::healthy().view());
    }

    #[test]
    fn members_and_routers_of_older_agents_say_nothing() {
        let mut old = member(2);
        old.service = None;
        let router = RouterKey {
            v: 1,
            instance: uuid(9),
            name: "router".to_owned(),
            health: "passing".to_owned(),
            reason: String::new(),
            fingerprint: None,
            vshard_version: String::new(),
            problem: None,
            service: None,
            written: NOW,
            written_ms: NOW * 1000,
            tarsec_version: String::new(),
        };
        let keys = || Keys::healthy().member(&old);
        let all = keepers(&[(1, Keeper::Heard), (3, Keeper::Heard)]);
        let view = keys().router(&router).view().with_agents(&all);
        assert_eq!(agent(&view, 2), None);
        assert_eq!(view.verdict, Verdict::Well);
        let known = RouterKey {
            service: member(4).service,
            ..router
        };
        let view = keys().router(&known).view().with_agents(&all);
        assert_eq!(view.verdict, Verdict::Unwell);
        assert!(view.notes[0].starts_with("the agent of router router"));
    }
}
