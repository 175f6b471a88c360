//! Whatever stands in Consul, a screen comes of it.

use proptest::prelude::*;

use super::*;
use crate::decide::term::Term;
use crate::plain;

/// What somebody with the right to write keys may put where words are expected.
fn hostile() -> impl Strategy<Value = String> {
    let hidden =
        "[a-z \u{1b}\u{9b}\u{61c}\u{180e}\u{200b}\u{202e}\u{2066}\u{feff}\u{e0041}\n]{0,12}";
    (hidden, any::<bool>()).prop_map(|(mut words, login)| {
        if login {
            words.push_str(" admin:SECRET@db-1:3301");
        }
        words
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let written = vec![
        record().to_bytes(),
        serde_json::to_vec(&member(2)).unwrap(),
        serde_json::to_vec(&line(Term::from(3))).unwrap(),
        serde_json::to_vec(&switchover(SwitchoverState::Running)).unwrap(),
    ];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        // What agents write, with one byte of it changed, and with numbers of any size.
        (
            prop::sample::select(written),
            any::<prop::sample::Index>(),
            any::<u8>()
        )
            .prop_map(|(mut bytes, at, byte)| {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes
            }),
        any::<u64>().prop_map(|number| {
            let mut record = record();
            record.since = number;
            record.since_ms = number;
            record.refresh = number;
            record.vclock = vclock(number);
            record.to_bytes()
        }),
        any::<u64>().prop_map(|number| {
            let mut member = member(3);
            member.written = number;
            member.written_ms = number;
            member.vclock = vclock(number);
            member.priority = number.cast_signed();
            serde_json::to_vec(&member).unwrap()
        }),
        hostile().prop_map(|words| {
            let mut record = record();
            record.name = words.clone();
            record.reason = words.clone();
            record.uri = words;
            record.to_bytes()
        }),
        hostile().prop_map(|words| {
            let mut member = member(2);
            member.name = words.clone();
            member.uri = words.clone();
            member.reason = words.clone();
            member.health = words;
            serde_json::to_vec(&member).unwrap()
        }),
        hostile().prop_map(|words| {
            let mut line = line(Term::from(7));
            line.to.name = words.clone();
            line.reason = words.clone();
            line.by = Some(words);
            serde_json::to_vec(&line).unwrap()
        }),
        any::<u32>().prop_map(|number| {
            let mut line = line(Term::from(number));
            let number = u64::from(number);
            line.at = number;
            line.rows_at_risk = number;
            line.stages_ms.elected = number;
            serde_json::to_vec(&line).unwrap()
        }),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "leader",
        "switchover",
        "pause",
        "members/x",
        "history/7",
        "ballots/y",
        "",
        "x",
        "members",
    ];
    prop_oneof![
        (0..2_usize, prop::sample::select(NAMES)).prop_map(|(set, name)| {
            let set = [SET, "another"][set];
            format!("tarsec/shop/{set}/{name}")
        }),
        Just("tarsec/shop/pause".to_owned()),
        Just("lock".to_owned()),
        "tarsec/shop/\\PC{0,80}",
        "\\PC{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::with_cases(512) })]

    #[test]
    fn whatever_stands_in_consul_fits_on_the_screen(
        keys in proptest::collection::vec((any_key(), any_bytes(), any::<bool>()), 0..12),
        lock_key in any::<bool>(),
        watched in 0..100_000_u64,
        now in prop_oneof![Just(NOW * 1000), any::<u64>()],
    ) {
        let found: Vec<Found> = keys
            .into_iter()
            .map(|(key, value, held)| Found {
                key,
                modify_index: 1,
                session: held.then(|| SessionId::new("session")),
                value,
            })
            .collect();
        let sign = crate::ctl::view::Sign { watched: Duration::from_millis(watched), changed_ago: None };
        let signs: Signs = found.iter().map(|entry| (entry.key.clone(), sign)).collect();
        let keys = ClusterKeys::new("tarsec", "shop", lock_key.then_some("lock"));
        let view = cluster(&keys, &found, &signs, now);
        for text in [status(Paper::PLAIN, &view, keys.prefix()), history(Paper::PLAIN, &view)] {
            for line in text.lines() {
                prop_assert!(line.chars().count() <= WIDTH_MIN, "{line:?}");
                prop_assert!(!line.chars().any(plain::is_hidden), "{line:?}");
            }
            prop_assert!(!text.contains("SECRET"), "{text}");
        }
        let document = crate::ctl::status::json(&view);
        let line = document.strip_suffix('\n').unwrap();
        prop_assert!(!line.chars().any(plain::is_hidden), "{line:?}");
        prop_assert!(!line.contains("SECRET"), "{line}");
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }

    #[test]
    fn rows_take_no_more_than_their_column(rows in any::<u64>()) {
        prop_assert!(count(rows).len() <= 5);
    }
}

#[test]
fn a_partys_name_may_be_missing() {
    let nobody = HistoryLine {
        from: None,
        to: Party {
            instance: String::new(),
            name: String::new(),
        },
        ..line(Term::from(1))
    };
    let text = history(Paper::PLAIN, &Keys::healthy().line(&nobody).view());
    assert!(text.contains("nobody ->"), "{text}");
}
