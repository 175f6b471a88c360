use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use proptest::prelude::*;

use super::*;
use crate::config::OperatorConfig;

/// A user and a group that the tests' files do not belong to.
const STRANGER: u32 = 64_123;

/// The agent is another user than root, who may own its files; where the tests are not root, it is theirs.
fn me() -> Me {
    match Me::now() {
        Me { user: 0, .. } => Me {
            user: 990,
            group: 990,
        },
        me => me,
    }
}

/// A directory that only this test knows; it goes with everything in it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let id = crate::clock::random_id().unwrap();
        let path = std::env::temp_dir().join(format!("tarsec-exposure-{id}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn directory(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn said(path: &Path) -> String {
    let found = of_file("CONSUL_HTTP_TOKEN_FILE", path, me());
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn a_file_that_others_may_read_or_change_is_said_with_its_mode() {
    let place = Place::new();
    for (mode, words) in [
        (0o644, "may read it"),
        (0o604, "may read it"),
        (0o602, "may read or change it"),
        (0o622, "may read or change it"),
        (0o660, "may read or change it"),
    ] {
        let path = place.file(&format!("{mode:o}"), mode);
        let said = said(&path);
        let mode = format!("mode is {mode:04o}");
        for part in [
            "CONSUL_HTTP_TOKEN_FILE names",
            &mode,
            words,
            "allowed is 0600",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
    for mode in [0o600, 0o400, 0o640, 0o440] {
        assert_eq!(
            said(&place.file(&format!("{mode:o}"), mode)),
            "",
            "{mode:o}"
        );
    }
}

#[test]
fn a_file_of_a_stranger_is_said() {
    if Me::now().user != 0 {
        return;
    }
    let place = Place::new();
    let path = place.file("owned", 0o600);
    chown(&path, Some(STRANGER), None).unwrap();
    assert!(
        said(&path).contains("belongs to user 64123"),
        "{}",
        said(&path)
    );
    let path = place.file("grouped", 0o640);
    chown(&path, Some(0), Some(STRANGER)).unwrap();
    assert!(
        said(&path).contains("whose group is 64123"),
        "{}",
        said(&path)
    );
    chown(&path, Some(0), Some(me().group)).unwrap();
    assert_eq!(said(&path), "", "the agent's own group");
}

#[test]
fn a_link_that_others_may_replace_is_said_and_one_of_roots_is_not() {
    let place = Place::new();
    let secret = place.file("secret", 0o600);
    // As Kubernetes does it: a link to a file in a directory that is a link itself, in a sticky directory of root's.
    let volume = place.directory("volume", 0o1777);
    fs::create_dir(volume.join("..2026")).unwrap();
    fs::rename(&secret, volume.join("..2026/token")).unwrap();
    symlink("..2026", volume.join("..data")).unwrap();
    symlink("..data/token", volume.join("token")).unwrap();
    assert_eq!(said(&volume.join("token")), "");
    // The same where everybody may change the links.
    fs::set_permissions(&volume, Permissions::from_mode(0o777)).unwrap();
    let words = said(&volume.join("token"));
    assert!(words.contains("every user may replace"), "{words}");
    // What a safe link leads to counts as well.
    let safe = place.directory("safe", 0o755);
    symlink(volume.join("token"), safe.join("link")).unwrap();
    let words = said(&safe.join("link"));
    assert!(words.contains("volume/token on the way there"), "{words}");
    symlink("../safe/../safe/loop", safe.join("loop")).unwrap();
    assert_eq!(
        said(&safe.join("loop")),
        "",
        "the reader of the file complains"
    );
}

#[test]
fn a_directory_of_a_stranger_is_said() {
    if Me::now().user != 0 {
        return;
    }
    let place = Place::new();
    let directory = place.directory("theirs", 0o755);
    fs::write(directory.join("token"), "secret").unwrap();
    fs::set_permissions(directory.join("token"), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(said(&directory.join("token")), "");
    chown(&directory, Some(STRANGER), None).unwrap();
    let words = said(&directory.join("token"));
    assert!(words.contains("user 64123 may replace"), "{words}");
    chown(&directory, Some(0), Some(STRANGER)).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o775)).unwrap();
    let words = said(&directory.join("token"));
    assert!(words.contains("group 64123 may replace"), "{words}");
    // In a sticky directory a link of somebody else's is theirs to replace.
    fs::set_permissions(&directory, Permissions::from_mode(0o1777)).unwrap();
    symlink("token", directory.join("link")).unwrap();
    std::os::unix::fs::lchown(directory.join("link"), Some(STRANGER), None).unwrap();
    let words = said(&directory.join("link"));
    assert!(words.contains("user 64123 may replace"), "{words}");
}

#[test]
fn a_token_in_the_clear_and_a_server_that_nobody_checks_are_said() {
    let settings = |url: &str| {
        let variables = [
            ("CONSUL_HTTP_ADDR", url),
            ("CONSUL_HTTP_TOKEN", "SECRET"),
            ("CONSUL_HTTP_AUTH", "user:SECRET"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        OperatorConfig::from_iter(variables).unwrap().consul
    };
    let words = |config: &ConsulConfig| {
        let found = of_consul(config);
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    for here in [
        "127.0.0.1:8500",
        "127.1.2.3",
        "[::1]:8500",
        "localhost:8500",
        "LOCALHOST",
        "0.0.0.0:8500",
    ] {
        assert_eq!(words(&settings(&format!("http://{here}"))), "", "{here}");
    }
    for there in [
        "10.0.0.1:8500",
        "consul:8500",
        "[fe80::1]:8500",
        "localhost.example.net:8500",
    ] {
        let said = words(&settings(&format!("http://{there}")));
        for part in [
            "CONSUL_HTTP_TOKEN is set",
            "CONSUL_HTTP_AUTH is set",
            there,
            "in the clear",
            "allowed is https://",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("SECRET"), "{said}");
        assert_eq!(words(&settings(&format!("https://{there}"))), "");
    }
    let mut unchecked = settings("https://consul:8501");
    unchecked.tls.skip_verify = true;
    let said = words(&unchecked);
    assert!(
        said.contains("CONSUL_HTTP_SSL_VERIFY is false") && said.contains("allowed is true"),
        "{said}"
    );
    unchecked.base_url = "http://127.0.0.1:8500".to_owned();
    assert_eq!(words(&unchecked), "", "there is no certificate");
}

proptest! {
    #[test]
    fn no_bit_for_others_goes_unsaid(mode in 0_u32..0o1000, group in prop::sample::select(vec![0, 990, STRANGER])) {
        let me = Me { user: 990, group: 990 };
        let others = mode & 0o007 != 0;
        let strangers = group == STRANGER && mode & 0o070 != 0;
        let change = mode & 0o020 != 0;
        prop_assert_eq!(is_open(mode, group, me), others || strangers || change);
    }
}
