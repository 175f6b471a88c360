//! Files that change, hang or are gone while what they held is refused.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, mkfifoat};

use super::*;

/// Generous: a loaded machine must not fail a test.
const SOON: Duration = Duration::from_secs(20);

/// A file of a test's own.
struct Place {
    directory: PathBuf,
    file: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let own = format!("tarsec-secrets-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(own);
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("secret");
        Self { directory, file }
    }

    fn holds(&self, content: &str) {
        fs::write(&self.file, content).unwrap();
    }

    fn secret(&self) -> Secret {
        Secret::in_file("TARANTOOL_PASSWORD_FILE", &self.file, |_, _| Ok(())).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Has the secret refused again and again until it is this.
async fn becomes(secret: &Secret, wanted: &str) {
    let tried = async {
        while secret.get().as_str() != wanted {
            secret.refused();
            sleep(Duration::from_millis(10)).await;
        }
    };
    let found = timeout(SOON, tried).await;
    assert!(found.is_ok(), "still {:?}", secret.get());
}

#[tokio::test]
async fn a_secret_that_is_refused_is_read_again_by_everybody_who_shares_it() {
    let place = Place::new("again");
    place.holds("old\n");
    let secret = place.secret();
    let shared = secret.clone();
    place.holds("new\n");
    assert_eq!(secret.get().as_str(), "old", "nobody has refused it");
    let mut changes = shared.changes();
    becomes(&secret, "new").await;
    assert_eq!(shared.get().as_str(), "new");
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    place.holds("newest");
    becomes(&shared, "newest").await;
}

#[tokio::test]
async fn a_secret_that_was_given_stays() {
    let secret = Secret::from("given");
    secret.refused();
    assert!(!secret.value.inner.is_busy.load(Ordering::Acquire));
    assert_eq!(secret.get().as_str(), "given");
    assert!(secret.read_file().is_none());
}

#[tokio::test]
async fn what_cannot_be_used_keeps_the_one_before_until_it_can() {
    let place = Place::new("unusable");
    place.holds("old");
    let check: Check = |file, text| match text {
        "unfit" => Err(SettingError::Invalid {
            name: file.variable,
            value: file.path.display().to_string(),
            allowed: "another".to_owned(),
        }),
        _ => Ok(()),
    };
    let secret = Secret::in_file("CONSUL_HTTP_TOKEN_FILE", &place.file, check).unwrap();
    let complaint = || secret.value.inner.complaint.lock().unwrap().clone();
    let makes: [(&dyn Fn(), &str); 3] = [
        (
            &|| fs::remove_file(&place.file).unwrap(),
            "could not read the file that CONSUL_HTTP_TOKEN_FILE names",
        ),
        (&|| place.holds("\n"), "which is empty"),
        (&|| place.holds("unfit"), "allowed is another"),
    ];
    for (make, words) in makes {
        make();
        let tried = async {
            while !complaint().is_some_and(|why| why.contains(words)) {
                secret.refused();
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(
            timeout(SOON, tried).await.is_ok(),
            "{words}: {:?}",
            complaint()
        );
        assert_eq!(secret.get().as_str(), "old");
    }
    place.holds("new");
    becomes(&secret, "new").await;
    assert_eq!(complaint(), None);
}

#[tokio::test]
async fn refusals_without_end_cost_one_reading_each_pitch() {
    let read = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&read);
    let value = Renewable::renewed_by(0, "A".to_owned(), move |_: &u32| {
        counted.fetch_add(1, Ordering::Relaxed);
        Reading {
            changed: None,
            complaints: Vec::new(),
        }
    });
    let started = crate::clock::Clock::start();
    let mut refusals = 0_u32;
    while read.load(Ordering::Relaxed) < 2 {
        value.refused();
        refusals += 1;
        sleep(Duration::from_millis(1)).await;
    }
    let took = started
        .now()
        .since(crate::decide::timing::Tick::at(Duration::ZERO));
    assert!(took >= PITCH, "{took:?}");
    assert!(refusals > 2);
}

/// A process that opens a FIFO waits for another one at its other end, as for a file on a server that is gone.
#[tokio::test]
async fn a_file_that_hangs_holds_nobody_and_is_read_by_one_thread() {
    let place = Place::new("hangs");
    place.holds("old");
    let secret = place.secret();
    fs::remove_file(&place.file).unwrap();
    mkfifoat(rustix::fs::CWD, &place.file, Mode::from(0o600)).unwrap();
    let complaint = || secret.value.inner.complaint.lock().unwrap().clone();
    let tried = async {
        while complaint().is_none() {
            secret.refused();
            assert_eq!(secret.get().as_str(), "old");
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(SOON, tried).await.is_ok());
    let why = complaint().unwrap();
    assert!(
        why.contains("TARANTOOL_PASSWORD_FILE names takes more than"),
        "{why}"
    );
    // A secret that comes late is taken all the same. A test that opens the FIFO once serves one reader: were there
    // two, the second would hang on.
    let file = place.file.clone();
    let writer = spawn_blocking(move || fs::write(file, "late\n"));
    becomes(&secret, "late").await;
    writer.await.unwrap().unwrap();
    assert_eq!(complaint(), None);
}
