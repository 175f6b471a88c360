//! Each step against a real Consul, and the decoders against anything.

use proptest::prelude::*;

use super::*;
use crate::consul::LockWatch;
use crate::consul::testing::{self, ROOT_TOKEN};

/// A key of its own, a client, and two sessions.
struct Scene {
    consul: Consul,
    key: String,
    mine: SessionId,
    theirs: SessionId,
}

impl Scene {
    async fn new(test: &str) -> Self {
        let consul = testing::plain().client();
        let (mine, theirs) = (consul.any_session().await, consul.any_session().await);
        Self {
            consul,
            key: format!("tarsec/lock test/{test}/leader"),
            mine,
            theirs,
        }
    }

    async fn step(&self, step: LockStep) -> LockOutcome {
        self.consul.transact(&self.key, &step).await.unwrap()
    }

    async fn done(&self, step: LockStep) -> u64 {
        match self.step(step).await {
            LockOutcome::Done { modify_index, .. } => modify_index,
            LockOutcome::Refused { why } => panic!("refused: {why}"),
        }
    }

    async fn refused(&self, step: LockStep) -> String {
        match self.step(step).await {
            LockOutcome::Refused { why } => why,
            LockOutcome::Done { modify_index, .. } => panic!("done at {modify_index}"),
        }
    }

    async fn created(&self, session: &SessionId) -> u64 {
        self.done(LockStep::Create {
            session: session.clone(),
            value: b"created".to_vec(),
        })
        .await
    }

    async fn found(&self) -> LockKey {
        self.consul.read_lock(&self.key).await.unwrap().key.unwrap()
    }

    fn refresh(&self, index: u64, value: &[u8]) -> LockStep {
        LockStep::Refresh {
            index,
            session: self.mine.clone(),
            value: value.to_vec(),
        }
    }

    fn acquire(&self, index: u64) -> LockStep {
        LockStep::Acquire {
            index,
            session: self.mine.clone(),
            value: b"acquired".to_vec(),
        }
    }

    fn release(&self, index: u64) -> LockStep {
        LockStep::Release {
            index,
            session: self.mine.clone(),
            value: b"fenced".to_vec(),
        }
    }

    fn take_over(&self, index: u64) -> LockStep {
        let (holder, session) = (self.theirs.clone(), self.mine.clone());
        LockStep::TakeOver {
            index,
            holder,
            session,
            value: b"taken".to_vec(),
        }
    }
}

#[tokio::test]
async fn only_the_first_creates_the_lock() {
    let scene = Scene::new("create").await;
    assert_eq!(scene.consul.read_lock(&scene.key).await.unwrap().key, None);
    let modify_index = scene.created(&scene.theirs).await;
    let key = LockKey {
        modify_index,
        session: Some(scene.theirs.clone()),
        value: b"created".to_vec(),
    };
    assert_eq!(scene.found().await, key);
    let again = LockStep::Create {
        session: scene.mine.clone(),
        value: Vec::new(),
    };
    assert!(scene.refused(again).await.contains("exists"));
    assert_eq!(scene.found().await, key);
}

#[tokio::test]
async fn a_session_that_is_gone_gains_nothing() {
    let scene = Scene::new("gone").await;
    scene.consul.destroy_session(&scene.mine).await.unwrap();
    let step = LockStep::Create {
        session: scene.mine.clone(),
        value: Vec::new(),
    };
    assert!(scene.refused(step).await.contains("invalid session"));
}

#[tokio::test]
async fn a_free_lock_is_acquired_if_nothing_happened_since() {
    let scene = Scene::new("acquire").await;
    let created = scene.created(&scene.mine).await;
    let free = scene.done(scene.release(created)).await;
    scene.consul.put_key(&scene.key, b"somebody").await.unwrap();
    assert!(scene.refused(scene.acquire(free)).await.contains("index"));
    let seen = scene.found().await.modify_index;
    scene.done(scene.acquire(seen)).await;
    assert_eq!(scene.found().await.session, Some(scene.mine.clone()));
}

#[tokio::test]
async fn a_held_lock_is_not_acquired() {
    let scene = Scene::new("held").await;
    let index = scene.created(&scene.theirs).await;
    scene.refused(scene.acquire(index)).await;
    assert_eq!(scene.found().await.session, Some(scene.theirs.clone()));
}

#[tokio::test]
async fn a_refresh_moves_the_index_only_with_a_new_value() {
    let scene = Scene::new("refresh").await;
    let created = scene.created(&scene.mine).await;
    let refreshed = scene.refresh(created, b"\xff\x00 not utf-8");
    let refreshed = scene.done(refreshed).await;
    assert!(refreshed > created);
    assert_eq!(scene.found().await.value, b"\xff\x00 not utf-8");
    assert_eq!(
        scene
            .done(scene.refresh(refreshed, b"\xff\x00 not utf-8"))
            .await,
        refreshed
    );
}

#[tokio::test]
async fn a_refresh_is_refused_once_the_session_is_gone() {
    let scene = Scene::new("refresh gone").await;
    scene.created(&scene.mine).await;
    scene.consul.destroy_session(&scene.mine).await.unwrap();
    let index = scene.found().await.modify_index;
    scene.refused(scene.refresh(index, b"late")).await;
    let found = scene.found().await;
    assert_eq!((found.session, found.value), (None, b"created".to_vec()));
}

#[tokio::test]
async fn a_refresh_is_refused_on_a_free_lock() {
    let scene = Scene::new("refresh free").await;
    let created = scene.created(&scene.mine).await;
    let released = scene.done(scene.release(created)).await;
    scene.refused(scene.refresh(released, b"late")).await;
    assert_eq!(scene.found().await.session, None);
}

#[tokio::test]
async fn a_refresh_is_refused_on_a_key_that_was_deleted() {
    let scene = Scene::new("refresh deleted").await;
    let created = scene.created(&scene.mine).await;
    let delete = format!(r#"[{{"KV":{{"Verb":"delete","Key":"{}"}}}}]"#, scene.key);
    scene.consul.tell("/v1/txn", &delete).await;
    assert!(
        scene
            .refused(scene.refresh(created, b"late"))
            .await
            .contains("doesn't exist")
    );
    assert_eq!(scene.consul.read_lock(&scene.key).await.unwrap().key, None);
}

#[tokio::test]
async fn a_refresh_mends_what_a_plain_write_left() {
    let scene = Scene::new("refresh overwritten").await;
    let created = scene.created(&scene.mine).await;
    scene.consul.put_key(&scene.key, b"somebody").await.unwrap();
    let found = scene.found().await;
    assert_eq!(found.session, Some(scene.mine.clone()));
    scene.refused(scene.refresh(created, b"not seen")).await;
    scene
        .done(scene.refresh(found.modify_index, b"mine again"))
        .await;
    assert_eq!(scene.found().await.value, b"mine again");
}

#[tokio::test]
async fn a_release_leaves_the_last_value_and_nobody() {
    let scene = Scene::new("release").await;
    let created = scene.created(&scene.mine).await;
    let modify_index = scene.done(scene.release(created)).await;
    assert_eq!(
        scene.found().await,
        LockKey {
            modify_index,
            session: None,
            value: b"fenced".to_vec()
        }
    );
}

#[tokio::test]
async fn a_release_is_refused_to_whoever_does_not_hold_it() {
    let scene = Scene::new("release theirs").await;
    let created = scene.created(&scene.theirs).await;
    scene.refused(scene.release(created)).await;
    assert_eq!(scene.found().await.value, b"created");
}

#[tokio::test]
async fn a_release_that_comes_after_a_later_refresh_is_refused() {
    let scene = Scene::new("release late").await;
    let created = scene.created(&scene.mine).await;
    scene.done(scene.refresh(created, b"later")).await;
    assert!(
        scene
            .refused(scene.release(created))
            .await
            .contains("index")
    );
    assert_eq!(scene.found().await.session, Some(scene.mine.clone()));
}

/// The same session may have released the lock and taken it again in a higher term by then.
#[tokio::test]
async fn a_refresh_that_comes_after_a_later_acquisition_with_the_same_session_is_refused() {
    let scene = Scene::new("refresh late").await;
    let created = scene.created(&scene.mine).await;
    let released = scene.done(scene.release(created)).await;
    scene.done(scene.acquire(released)).await;
    let why = scene.refused(scene.refresh(created, b"late")).await;
    assert!(why.contains("index"), "{why}");
    assert_eq!(scene.found().await.value, b"acquired");
}

#[tokio::test]
async fn a_silent_holder_loses_the_lock_and_one_that_refreshes_keeps_it() {
    let scene = Scene::new("take over").await;
    let index = scene.created(&scene.theirs).await;
    let refreshed = LockStep::Refresh {
        index,
        session: scene.theirs.clone(),
        value: b"here".to_vec(),
    };
    let refreshed = scene.done(refreshed).await;
    assert!(
        scene
            .refused(scene.take_over(index))
            .await
            .contains("index")
    );
    assert_eq!(scene.found().await.session, Some(scene.theirs.clone()));
    let modify_index = scene.done(scene.take_over(refreshed)).await;
    let taken = LockKey {
        modify_index,
        session: Some(scene.mine.clone()),
        value: b"taken".to_vec(),
    };
    assert_eq!(scene.found().await, taken);
    let late = LockStep::Refresh {
        index: modify_index,
        session: scene.theirs.clone(),
        value: b"late".to_vec(),
    };
    scene.refused(late).await;
}

#[tokio::test]
async fn the_end_of_a_silent_hold_is_declared_and_of_one_that_refreshes_is_not() {
    let scene = Scene::new("declare").await;
    let index = scene.created(&scene.theirs).await;
    let declare = |index| LockStep::Declare {
        index,
        holder: Some(scene.theirs.clone()),
        value: b"declared".to_vec(),
    };
    let refreshed = LockStep::Refresh {
        index,
        session: scene.theirs.clone(),
        value: b"here".to_vec(),
    };
    let refreshed = scene.done(refreshed).await;
    assert!(scene.refused(declare(index)).await.contains("index"));
    assert_eq!(scene.found().await.session, Some(scene.theirs.clone()));
    let modify_index = scene.done(declare(refreshed)).await;
    let declared = LockKey {
        modify_index,
        session: None,
        value: b"declared".to_vec(),
    };
    assert_eq!(scene.found().await, declared);
    let late = LockStep::Refresh {
        index: modify_index,
        session: scene.theirs.clone(),
        value: b"late".to_vec(),
    };
    scene.refused(late).await;
}

#[tokio::test]
async fn the_end_of_a_hold_by_another_session_is_not_declared() {
    let scene = Scene::new("declare other").await;
    let index = scene.created(&scene.mine).await;
    let step = LockStep::Declare {
        index,
        holder: Some(scene.theirs.clone()),
        value: b"declared".to_vec(),
    };
    scene.refused(step).await;
    assert_eq!(scene.found().await.session, Some(scene.mine.clone()));
}

#[tokio::test]
async fn a_free_lock_is_declared_over_unless_somebody_has_taken_it() {
    let scene = Scene::new("declare free").await;
    let created = scene.created(&scene.mine).await;
    let free = scene.done(scene.release(created)).await;
    let declare = |index| LockStep::Declare {
        index,
        holder: None,
        value: b"declared".to_vec(),
    };
    let declared = scene.done(declare(free)).await;
    assert_eq!(scene.found().await.value, b"declared");
    // The same value again, so that nothing but the holder changes.
    let step = LockStep::Acquire {
        index: declared,
        session: scene.theirs.clone(),
        value: b"declared".to_vec(),
    };
    scene.done(step).await;
    scene.refused(declare(declared)).await;
    assert_eq!(scene.found().await.session, Some(scene.theirs.clone()));
}

#[tokio::test]
async fn a_watch_waits_for_a_change_and_sees_it() {
    let scene = Scene::new("watch").await;
    let created = scene.created(&scene.mine).await;
    let mut watch = LockWatch::new(&scene.key, Duration::from_secs(20));
    let first = watch.next(&scene.consul).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), watch.next(&scene.consul))
            .await
            .is_err()
    );
    let refreshed = scene.refresh(created, b"changed");
    let (second, modify_index) = tokio::join!(watch.next(&scene.consul), scene.done(refreshed));
    let second = second.unwrap();
    assert!(second.index > first.index);
    assert_eq!(second.key.unwrap().modify_index, modify_index);
}

#[tokio::test]
async fn a_watch_that_failed_answers_at_once_when_consul_is_back() {
    let scene = Scene::new("watch back").await;
    scene.created(&scene.mine).await;
    let wait = Duration::from_secs(20);
    let mut watch = LockWatch::new(&scene.key, wait);
    let seen = watch.next(&scene.consul).await.unwrap();
    let nobody = testing::settings("http://127.0.0.1:9".to_owned());
    let nobody = Consul::new(&nobody, Duration::from_secs(1)).unwrap();
    watch.next(&nobody).await.unwrap_err();
    let back = tokio::time::timeout(wait / 2, watch.next(&scene.consul)).await;
    assert_eq!(back.unwrap().unwrap(), seen);
}

#[tokio::test]
async fn a_watch_ends_after_its_wait_where_nothing_changes() {
    let scene = Scene::new("watch ends").await;
    scene.created(&scene.mine).await;
    let first = scene.consul.read_lock(&scene.key).await.unwrap();
    let second = scene
        .consul
        .watch_lock(&scene.key, first.index, Duration::from_millis(50))
        .await
        .unwrap();
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_denial_is_no_refusal() {
    let agent = testing::with_acls();
    let root = agent.client_with_token(ROOT_TOKEN);
    let key = "tarsec/denied/leader";
    let session = root.any_session().await;
    root.transact(
        key,
        &LockStep::Create {
            session: session.clone(),
            value: b"a".to_vec(),
        },
    )
    .await
    .unwrap();
    for stranger in [
        agent.client(),
        agent.client_with_token("00000000-0000-0000-0000-00000000dead"),
    ] {
        let step = LockStep::Refresh {
            index: 1,
            session: session.clone(),
            value: b"b".to_vec(),
        };
        let denied = stranger.transact(key, &step).await.unwrap_err();
        assert!(denied.is_denied(), "{denied}");
        let denied = stranger.read_lock(key).await.unwrap_err();
        assert!(denied.is_denied(), "{denied}");
        assert!(
            stranger
                .read_lock("tarsec/denied/missing")
                .await
                .unwrap_err()
                .is_denied()
        );
        let denied = stranger
            .watch_lock(key, 1, Duration::from_secs(1))
            .await
            .unwrap_err();
        assert!(denied.is_denied(), "{denied}");
    }
}

fn answer(code: u16, index: Option<u64>, body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        cut: false,
        what: "test".to_owned(),
        code,
        index,
        body: body.into(),
    }
}

#[test]
fn a_not_found_that_is_not_from_consul_is_no_free_lock() {
    assert_eq!(
        view("k", answer(404, Some(0), "")).unwrap(),
        LockView {
            index: 1,
            key: None
        }
    );
    assert!(view("k", answer(404, None, "no such page")).is_err());
}

fn decoded(answer: Answer) -> Result<LockOutcome, ConsulError> {
    outcome("k", crate::consul::txn::decode(answer)?)
}

#[test]
fn what_is_uncertain_is_never_a_refusal() {
    for (code, body) in [
        (500, "No cluster leader"),
        (409, ""),
        (409, "{}"),
        (200, "{}"),
        (200, ""),
        (429, ""),
    ] {
        assert!(decoded(answer(code, None, body)).is_err(), "{code} {body}");
    }
}

#[test]
fn operations_name_the_namespace() {
    let step = LockStep::Create {
        session: SessionId::new("s"),
        value: b"v".to_vec(),
    };
    let body = serde_json::to_value(step.operations("k", Some("team"))).unwrap();
    let expected = serde_json::json!([
        {"Verb": "check-not-exists", "Key": "k", "Namespace": "team"},
        {"Verb": "lock", "Key": "k", "Value": "dg==", "Session": "s", "Namespace": "team"},
    ]);
    assert_eq!(body, expected);
}

proptest! {
    #[test]
    fn decoders_survive_any_bytes(code in prop::sample::select(vec![200_u16, 404, 409, 500]), body: Vec<u8>) {
        let _ = view("k", answer(code, Some(1), body.clone()));
        let _ = decoded(answer(code, None, body));
    }

    #[test]
    fn decoders_survive_nearly_right_bytes(value in "[a-zA-Z0-9+/=]{0,9}", at in 0_usize..90, byte: u8) {
        let entry = format!(r#"[{{"Key":"k","Value":"{value}","ModifyIndex":7,"Session":"s"}}]"#);
        let transaction = r#"{"Results":[{"KV":{"Key":"k","ModifyIndex":7}}],"Errors":[{"What":"w"}]}"#;
        for text in [entry.as_str(), transaction] {
            let mut body = text.as_bytes().to_vec();
            let last = body.len() - 1;
            body[at.min(last)] = byte;
            let _ = view("k", answer(200, Some(1), body.clone()));
            let _ = decoded(answer(200, None, body.clone()));
            let _ = decoded(answer(409, None, body));
        }
    }
}

#[tokio::test]
async fn a_token_that_may_only_read_is_denied_not_refused() {
    let agent = testing::with_acls();
    let root = agent.client_with_token(ROOT_TOKEN);
    let policy = r#"{"Name":"reader","Rules":"key_prefix \"tarsec/\" { policy = \"read\" }"}"#;
    assert_eq!(root.tell("/v1/acl/policy", policy).await.code, 200);
    let made = root
        .tell("/v1/acl/token", r#"{"Policies":[{"Name":"reader"}]}"#)
        .await;
    let reader = agent.client_with_token(made.value()["SecretID"].as_str().unwrap());
    let key = "tarsec/read-only/leader";
    let session = root.any_session().await;
    let step = LockStep::Create {
        session,
        value: b"a".to_vec(),
    };
    let denied = reader.transact(key, &step).await.unwrap_err();
    assert!(denied.is_denied(), "{denied}");
    assert_eq!(reader.read_lock(key).await.unwrap().key, None);
    root.transact(key, &step).await.unwrap();
    assert_eq!(
        reader.read_lock(key).await.unwrap().key.unwrap().value,
        b"a"
    );
}

#[tokio::test]
async fn a_watch_on_a_missing_key_sees_it_made_and_does_not_spin() {
    let scene = Scene::new("watch missing").await;
    let mut watch = LockWatch::new(&scene.key, Duration::from_secs(20));
    let mut index = watch.next(&scene.consul).await.unwrap().index;
    let make = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        scene.created(&scene.mine).await
    };
    let see = async {
        loop {
            let view = watch.next(&scene.consul).await.unwrap();
            assert!(view.index > index, "{} after {index}", view.index);
            index = view.index;
            if let Some(key) = view.key {
                return key.modify_index;
            }
        }
    };
    let (made, seen) = tokio::join!(make, see);
    assert_eq!(made, seen);
}
