//! Instances of one name are told apart: by as much of their UUIDs as it takes, wherever a command speaks of them.

use std::collections::BTreeMap;

use super::view::SetView;
use crate::decide::board::Party;
use crate::decide::names;

/// By instance UUID.
type Labels = BTreeMap<String, String>;

impl SetView {
    /// The same with names of which no two are alike. Instances that are long gone count in the names of the history
    /// alone.
    pub(super) fn told_apart(mut self) -> Self {
        let all = self
            .members
            .iter()
            .map(|member| (&*member.name, &*member.instance));
        let holder = self.holder.iter().map(named);
        let now: Vec<(&str, &str)> = all.chain(holder).collect();
        let lines = self.history.iter();
        let parties = lines.flat_map(|line| line.from.iter().chain([&line.to]));
        let ever = now.iter().copied().chain(parties.map(named));
        let (ever, now) = (names::labels(ever), names::labels(now.iter().copied()));
        for member in &mut self.members {
            label(&now, &member.instance, &mut member.name);
        }
        if let Some(party) = &mut self.holder {
            label(&now, &party.instance, &mut party.name);
        }
        for line in &mut self.history {
            for party in line.from.iter_mut().chain([&mut line.to]) {
                label(&ever, &party.instance, &mut party.name);
            }
        }
        for party in self
            .rows_at_risk
            .iter_mut()
            .filter_map(|risk| risk.from.as_mut())
        {
            label(&ever, &party.instance, &mut party.name);
        }
        self
    }
}

fn named(party: &Party) -> (&str, &str) {
    (&party.name, &party.instance)
}

fn label(labels: &Labels, instance: &str, name: &mut String) {
    if let Some(label) = labels.get(instance) {
        name.clone_from(label);
    }
}

#[cfg(test)]
mod tests {
    use crate::ctl::toys::{Keys, line, member, name, party, uuid};
    use crate::decide::board::{HistoryLine, Member, Party};
    use crate::decide::term::Term;

    /// Replicas 2 and 3 share a name.
    fn twins() -> Keys {
        let twin = Member {
            name: name(2),
            uri: name(2),
            ..member(3)
        };
        Keys::healthy().member(&twin)
    }

    #[test]
    fn members_of_one_name_are_told_apart_in_views_and_sentences() {
        let view = twins().view();
        let set = &view.replicasets[0];
        let names: Vec<&str> = set.members.iter().map(|member| &*member.name).collect();
        let [two, three] = [2, 3].map(|number| format!("{} ({})", name(2), &uuid(number)[..8]));
        assert_eq!(names, [&*name(1), &*two, &*three]);
        assert!(
            set.notes[0].starts_with("2 members announce the same address"),
            "{:?}",
            set.notes
        );
    }

    #[test]
    fn an_instance_that_was_set_up_anew_is_told_from_the_one_before_in_the_history_alone() {
        let before = Party {
            instance: uuid(9),
            name: name(2),
        };
        let line = HistoryLine {
            from: Some(before),
            to: party(2),
            ..line(Term::from(7))
        };
        let view = Keys::healthy().line(&line).view();
        let set = &view.replicasets[0];
        assert_eq!(set.members[1].name, name(2));
        let line = &set.history[0];
        let from = line.from.as_ref().unwrap();
        let labels = [9, 2].map(|number| format!("{} ({})", name(2), &uuid(number)[..8]));
        assert_eq!([&from.name, &line.to.name], [&labels[0], &labels[1]]);
        assert_eq!(set.rows_at_risk[0].from.as_ref().unwrap().name, labels[0]);
    }
}
