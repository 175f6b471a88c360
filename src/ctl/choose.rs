//! Which replica set and which member an operator means.

use super::outcome::{Ended, Outcome};
use super::view::{ClusterView, MemberView, SetView};

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
