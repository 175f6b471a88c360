use super::super::toys::{Keys, SET, member, name, record, uuid};
use super::*;
use crate::decide::board::Member;
use crate::decide::record::Record;

const OTHER: &str = "5f6a3c1e-0000-4000-8000-000000000002";

fn two_sets() -> ClusterView {
    let other = Record {
        replicaset: OTHER.to_owned(),
        instance: uuid(7),
        members: Vec::new(),
        ..record()
    };
    let alone = Member {
        replicaset: OTHER.to_owned(),
        ..member(7)
    };
    Keys::healthy().lock(&other).member(&alone).view()
}

#[track_caller]
fn chosen(view: &ClusterView, name: Option<&str>, uuid: &str) {
    let found = view.choose(name).map(|set| set.replicaset.as_str());
    assert_eq!(found, Ok(uuid));
}

#[track_caller]
fn unclear(view: &ClusterView, name: Option<&str>, outcome: Outcome, words: &str) {
    let ended = view.choose(name).expect_err(words);
    assert_eq!(ended.outcome, outcome);
    assert!(ended.why.contains(words), "{}", ended.why);
}

#[test]
fn the_only_replica_set_need_not_be_named() {
    chosen(&Keys::healthy().view(), None, SET);
    unclear(&two_sets(), None, Outcome::Usage, "which replica set?");
    let none = Keys::none().view();
    unclear(&none, None, Outcome::NoMaster, "has no replica set");
}

#[test]
fn a_replica_set_is_named_by_its_uuid_its_beginning_or_a_member() {
    let view = two_sets();
    chosen(&view, Some(OTHER), OTHER);
    chosen(&view, Some(&name(3)), SET);
    chosen(&view, Some(&uuid(7)), OTHER);
    chosen(&Keys::healthy().view(), Some("5f6a"), SET);
    unclear(&view, Some("5f6a"), Outcome::Usage, "several");
    unclear(
        &view,
        Some("db-9"),
        Outcome::Usage,
        "neither a replica set nor",
    );
    unclear(&view, Some(""), Outcome::Usage, "neither a replica set nor");
    let none = Keys::none().view();
    unclear(&none, Some("x"), Outcome::Usage, "has none");
}

#[test]
fn a_member_is_named_by_its_name_its_uuid_or_any_part_that_no_other_has() {
    let view = Keys::healthy().view();
    let set = &view.replicasets[0];
    for called in [&name(2), &uuid(2), "aaaaaaa2", "db-2", "-2.", "a2-0000"] {
        assert_eq!(set.member(called).map(|m| m.instance.clone()), Ok(uuid(2)));
    }
    for (called, words) in [
        ("db-9", "is no member"),
        ("", "is no member"),
        ("aaaaaaa", "means several members"),
        (":3301", "means several members"),
    ] {
        let ended = set.member(called).expect_err(called);
        assert_eq!(ended.outcome, Outcome::Refused);
        assert!(ended.why.contains(words), "{}", ended.why);
    }
}

#[test]
fn a_name_that_is_the_beginning_of_another_is_that_members() {
    let longer = Member {
        name: format!("{}0", name(2)),
        ..member(3)
    };
    let view = Keys::healthy().member(&longer).view();
    let found = view.replicasets[0].member(&name(2));
    assert_eq!(found.map(|m| m.instance.clone()), Ok(uuid(2)));
}

#[test]
fn members_of_one_name_are_refused_by_it_and_meant_by_their_uuids() {
    let twin = Member {
        name: name(2),
        uri: name(2),
        ..member(3)
    };
    let view = Keys::healthy().member(&twin).view();
    let set = &view.replicasets[0];
    let ended = set.member(&name(2)).expect_err("two of them");
    let both = [2, 3].map(|number| format!("{} ({})", name(2), &uuid(number)[..8]));
    assert!(ended.why.ends_with(&both.join(", ")), "{}", ended.why);
    let label = format!("{} (aaaaaaa3)", name(2));
    for called in ["aaaaaaa3", &label] {
        assert_eq!(set.member(called).map(|m| m.instance.clone()), Ok(uuid(3)));
    }
}
