//! `tarsec forget`: removes the keys of a member that is gone, or of one that there never was.

use super::context::Context;
use super::outcome::{Ended, Outcome};
use super::view::{AgentState, MemberRole, MemberView, SetView};
use crate::cli::ForgetArgs;

pub(super) async fn run(context: &mut Context<'_>, args: &ForgetArgs) -> Result<Outcome, Ended> {
    let view = context.look().await?;
    let view = context.with_agents(view).await;
    let named = args.replicaset.as_deref().unwrap_or(&args.member);
    let set = view.choose(Some(named))?;
    let member = set.member(&args.member)?;
    check(set, member).map_err(|why| Ended::new(Outcome::Refused, why))?;
    let (name, uuid) = (&member.name, &member.instance);
    context.terminal.ask(
        &format!(
            "What tarsec keeps of {name} ({uuid}) in replica set {} is removed: its member's key and its ballot. \
             Nothing changes in any instance.",
            set.replicaset
        ),
        args.yes,
    )?;
    let keys = context.config.keys().replicaset(&set.replicaset);
    context.consul.delete_key(&keys.ballot(uuid)).await?;
    context.consul.delete_key(&keys.member(uuid)).await?;
    context.terminal.say(&format!("{name} is forgotten"))?;
    Ok(Outcome::Done)
}

/// Why the member is not forgotten. Of whom the replica set asks a promise or a vote, the record says.
fn check(set: &SetView, member: &MemberView) -> Result<(), String> {
    let name = &member.name;
    match member.role {
        MemberRole::Master | MemberRole::Promoting => return Err(format!("{name} holds the lock")),
        MemberRole::Former => {
            return Err(format!(
                "{name} held the lock last: what it had is what the next master is measured by"
            ));
        }
        MemberRole::Replica | MemberRole::Anonymous => {}
    }
    if member.agent == Some(AgentState::Alive) {
        return Err(format!(
            "the agent of {name} lives, and would write its key again: stop it first"
        ));
    }
    let Some(record) = &set.lock.record else {
        return Err(format!(
            "the lock holds no record that says who is a member: nobody knows whether {name} is one"
        ));
    };
    if record.members.contains(&member.instance) {
        return Err(format!(
            "{name} is a member: the master's space _cluster has it. If its instance is gone for good, run on the master: \
             box.space._cluster.index.uuid:delete('{}')",
            member.instance
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consul::Keeper;
    use crate::ctl::toys::{Keys, member, name, uuid};
    use crate::ctl::view::ClusterView;
    use crate::decide::board::{Member, ServiceRef};

    const SERVICE: &str = "tarantool@stranger";

    /// The healthy replica set of three, and the key of one that its master does not know.
    fn with_a_stranger() -> Keys {
        Keys::healthy().member(&Member {
            instance: uuid(9),
            name: name(9),
            service: Some(ServiceRef {
                id: SERVICE.to_owned(),
                names: Vec::new(),
            }),
            ..member(3)
        })
    }

    fn refused(view: &ClusterView, number: u64) -> Option<String> {
        let set = view.choose(None).expect("the only one");
        let member = set.member(&uuid(number)).expect("a member");
        check(set, member).err()
    }

    #[test]
    fn whoever_the_record_names_or_an_agent_looks_after_stays() {
        let view = with_a_stranger().view();
        assert!(refused(&view, 1).is_some_and(|why| why.contains("holds the lock")));
        let why = refused(&view, 2).expect("refused");
        assert!(
            why.contains(&format!("index.uuid:delete('{}')", uuid(2))),
            "{why}"
        );
        assert_eq!(refused(&view, 9), None);
        let with = |keeper| {
            with_a_stranger()
                .view()
                .with_agents(&[(SERVICE.to_owned(), keeper)].into())
        };
        let why = refused(&with(Keeper::Heard), 9).expect("refused");
        assert!(why.contains("lives"), "{why}");
        assert_eq!(refused(&with(Keeper::Silent), 9), None);
    }

    #[test]
    fn without_a_record_nobody_is_forgotten() {
        let mut view = with_a_stranger().view();
        view.replicasets[0].lock.record = None;
        let why = refused(&view, 9).expect("refused");
        assert!(why.contains("no record"), "{why}");
    }
}
