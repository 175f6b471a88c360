//! What an instance says in words of its own, or of vshard's, and what may therefore hold an address with its login
//! (`Invalid URI: user:password@host`): it goes on into keys and checks that others read, so it is made plain here.

use crate::decide::observed::Probe;
use crate::decide::vshard::Look;
use crate::plain;

pub(super) fn probe(mut probe: Probe) -> Probe {
    for peer in &mut probe.replication {
        if let Some(upstream) = &mut peer.upstream {
            words(&mut upstream.message);
        }
    }
    words(&mut probe.guard.barrier_failure);
    probe.vshard = probe.vshard.map(look);
    probe
}

pub(super) fn look(mut look: Look) -> Look {
    if let Some(report) = &mut look.last {
        words(&mut report.failed);
        for problem in &mut report.problems {
            *problem = plain::line(problem);
        }
    }
    if let Some(central) = &mut look.config {
        words(&mut central.refused);
    }
    look
}

pub(super) fn words(said: &mut Option<String>) {
    if let Some(text) = said {
        *text = plain::line(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_in_the_instances_words_goes_no_further() {
        let mut said: Probe = serde_json::from_str(
            r#"{"now":1,"uuid":"i","replicaset_uuid":"r","ro":true,"read_only":true,"status":"running","pid":1,
                "guard":{"term":1,"deadline":0,"leased":false,"landed":true,"barrier_failure":"at u:SECRET@h:1"},
                "replication":[{"uuid":"p","upstream":{"status":"stopped","message":"no u:SECRET@h:1\u202e"}}],
                "vshard":{"storage":true,"last":{"failed":"Invalid URI: u:SECRET@h:1","problems":["u:SECRET@h:1"]},
                          "config":{"refused":"u:SECRET@h:1 is no address"}}}"#,
        )
        .unwrap();
        let message = |probe: &Probe| probe.replication[0].upstream.clone().unwrap().message;
        assert!(message(&said).unwrap().contains("SECRET"));
        said = probe(said);
        assert_eq!(
            message(&said).as_deref(),
            Some("no (redacted)@h:1\\u{202e}")
        );
        let all = serde_json::to_string(&said).unwrap();
        assert!(!all.contains("SECRET"), "{all}");
        assert!(all.contains("Invalid URI: (redacted)@h:1"), "{all}");
    }
}
