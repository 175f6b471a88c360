//! Where a member is reached for a login: the places that name an address, in the order in which they are asked, and what is said
//! of one that nobody vouches for.

use crate::state::State;
use crate::words::addresses::{LONGEST_SHOWN, Whereabouts};
use crate::words::names::labels;
use crate::words::observed::Probe;

/// Who says where a member is, and the address.
type Found<'a> = (&'static str, &'a str);

fn unvouched_words((source, address): Found<'_>) -> String {
    // Whatever stands in Consul; an address is no longer than a name and a port.
    let address: String = address.chars().take(LONGEST_SHOWN).collect();
    format!(
        "{source} {address:?}, which neither box.cfg.replication, as the instance's own configuration has it, nor \
         PEER_ADDRS names"
    )
}

fn whereabouts_words(refused: Option<Found<'_>>) -> String {
    match refused {
        None => "where it can be reached is not known".to_owned(),
        Some(found) => format!("no login is sent: {}", unvouched_words(found)),
    }
}

impl State {
    /// Where a member's guard is asked: as the instance follows it, else as its agent announces it, else as the instance
    /// followed it last.
    pub(crate) fn address(&self, probe: &Probe, uuid: &str) -> Whereabouts {
        let found = self.first_vouched(probe, self.asked_at(probe, uuid));
        found.map_err(whereabouts_words)
    }

    /// Where an instance is to replicate from that member, of which a record says that it is reached at `named`.
    pub(crate) fn address_to_follow(
        &self,
        probe: &Probe,
        uuid: &str,
        named: &str,
    ) -> Option<String> {
        self.first_vouched(probe, self.followable_at(uuid, named))
            .ok()
    }

    /// Members for which no login is sent though we may have to ask or to follow them: said while that does no harm yet.
    pub(crate) fn unvouched(&self) -> Vec<String> {
        let Some(probe) = &self.instance.probe else {
            return Vec::new();
        };
        let record = self.seen_record();
        let asks = self.settings.failsafe && self.never_master().is_none();
        let others = probe.replication.iter().map(|peer| &peer.uuid);
        let words = others
            .filter(|uuid| **uuid != probe.uuid)
            .filter_map(|uuid| {
                let named = record.filter(|record| record.instance == *uuid);
                let named = named.map_or("", |record| &record.uri);
                let followed = self.first_vouched(probe, self.followable_at(uuid, named));
                let asked = self.first_vouched(probe, self.asked_at(probe, uuid));
                let refused_as_master = followed.err().flatten().filter(|_| self.settings.follow);
                let refused = asked.err().flatten().filter(|_| asks);
                let found = refused_as_master.or(refused)?;
                let harm = [
                    refused_as_master.map(|_| "as master it is not followed"),
                    refused.map(|_| "without Consul its promise is missing"),
                ];
                let harm: Vec<&str> = harm.into_iter().flatten().collect();
                Some(format!(
                    "{} does not log in to {} ({}): {}",
                    self.name(),
                    self.known_as(uuid),
                    harm.join(", "),
                    unvouched_words(found)
                ))
            });
        words.collect()
    }

    /// What to call a member in sentences: two members never alike.
    pub(crate) fn known_as(&self, instance: &str) -> String {
        let all = self.announced.iter();
        let all = all.map(|(uuid, it)| (it.name.as_str(), uuid.as_str()));
        labels(all)
            .remove(instance)
            .unwrap_or_else(|| instance.to_owned())
    }

    fn first_vouched<'a>(
        &self,
        probe: &Probe,
        found: impl IntoIterator<Item = Option<Found<'a>>>,
    ) -> Result<String, Option<Found<'a>>> {
        let mut refused = None;
        for (source, address) in found.into_iter().flatten() {
            let allowed = &self.settings.peer_addrs;
            if let Some(address) = allowed.vouched(&probe.configured, address) {
                return Ok(address);
            }
            refused.get_or_insert((source, address));
        }
        Err(refused)
    }

    fn asked_at(&self, probe: &Probe, uuid: &str) -> [Option<Found<'_>>; 2] {
        let (last, announced) = (self.followed_at(uuid), self.announced_at(uuid));
        if probe.upstream(uuid).is_some() {
            [last, announced]
        } else {
            [announced, last]
        }
    }

    fn followable_at<'a>(&'a self, uuid: &str, named: &'a str) -> [Option<Found<'a>>; 3] {
        let named = Some(("the record of the lock says", named));
        [
            named.filter(|(_, uri)| !uri.is_empty()),
            self.announced_at(uuid),
            self.followed_at(uuid),
        ]
    }

    fn followed_at(&self, uuid: &str) -> Option<(&'static str, &str)> {
        let last = self.instance.peers.get(uuid)?;
        Some(("the instance follows", last))
    }

    fn announced_at(&self, uuid: &str) -> Option<(&'static str, &str)> {
        let uri = self.announced.get(uuid).map(|it| it.uri.as_str())?;
        Some(("its member's key in Consul says", uri)).filter(|_| !uri.starts_with(':'))
    }
}
