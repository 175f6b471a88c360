//! When something is said, and how loud.

use super::*;
use crate::decide::sight::ConsulFault;
use crate::logging::tests::logged;

#[test]
fn a_failure_is_said_again_when_its_words_change_or_it_went_well_in_between() {
    let failed = |why: &str| Event::BoardRead {
        result: Err(ConsulFault {
            why: why.to_owned(),
            denied: true,
        }),
    };
    let mut said = Said::default();
    let events = [
        (failed("denied"), true),
        (failed("denied"), false),
        (failed("gone"), true),
        (
            Event::BoardRead {
                result: Ok(Box::default()),
            },
            true,
        ),
        (failed("gone"), true),
        (failed("gone"), false),
    ];
    for (at, (event, news)) in events.iter().enumerate() {
        assert_eq!(is_news(&mut said, event), *news, "{at}");
    }
}

#[test]
fn a_reason_is_said_once_and_the_one_before_is_not_repeated() {
    let before = Reason::WaitingForConsul {
        why: "it has not answered yet".to_owned(),
    };
    let after = Reason::KillingHungInstance;
    let text = logged(Level::DEBUG, false, || {
        reason(None, &before);
        reason(Some(&before), &after);
        reason(Some(&after), &after);
    });
    for words in [before.to_string(), after.to_string()] {
        assert_eq!(text.matches(&words).count(), 1, "{text}");
    }
}

#[test]
fn a_switchover_that_came_to_nothing_is_a_warning() {
    for (state, level) in [
        (SwitchoverState::Running, "INFO"),
        (SwitchoverState::Done, "INFO"),
        (SwitchoverState::Refused, "WARN"),
        (SwitchoverState::Undone, "WARN"),
    ] {
        let order = Switchover {
            state,
            ..Switchover::nothing()
        };
        let text = logged(Level::INFO, false, || switchover(&order));
        assert!(text.contains(&format!("{level} switchover")), "{text}");
    }
}

#[test]
fn every_changed_field_is_named_with_its_old_and_new_value() {
    let mut changed = Vec::new();
    let old = json!({"a": {"b": 1, "c": 2}, "gone": true});
    let new = json!({"a": {"b": 1, "c": 3}, "come": "x"});
    compare("", &old, &new, &mut changed);
    let fields: Vec<_> = changed
        .iter()
        .map(|(field, old, new)| format!("{field}: {old} -> {new}"))
        .collect();
    assert_eq!(
        fields,
        ["a.c: 2 -> 3", "come: null -> \"x\"", "gone: true -> null"]
    );
}
