//! Ctrl-C ends what a program has started, and leaves no folder behind.
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]
#![allow(clippy::unwrap_used, reason = "a test may stop at what is not there")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A busy machine starts Consul in that time.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process runs that was told of this directory.
fn is_used(dir: &Path) -> bool {
    let dir = dir.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(dir)
    })
}

fn ended(child: &mut Child) -> Option<Option<i32>> {
    child.try_wait().unwrap().map(|status| status.code())
}

#[test]
fn a_demo_that_is_interrupted_leaves_neither_processes_nor_its_folder() {
    let base = std::env::temp_dir().join(format!("interrupt-{}", std::process::id()));
    std::fs::create_dir_all(&base).unwrap();
    // The agents' turn never comes.
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .env("TMPDIR", &base)
        .env("TARSEC_BIN", "/bin/true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let folder: PathBuf = wait_for("the demo's folder", || {
        // Beside it stands what all worlds of the harness share, the ports that they have taken.
        let entries = std::fs::read_dir(&base).ok()?.flatten();
        let mut folders = entries.map(|entry| entry.path());
        folders.find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("tarsec-demo-"))
        })
    });
    wait_for("a process in it", || is_used(&folder).then_some(()));
    let pid = Pid::from_child(&demo);
    kill_process(pid, Signal::INT).unwrap();
    let code = wait_for("the demo's end", || ended(&mut demo));
    assert_eq!(code, Some(130));
    assert!(!folder.exists(), "{} is left", folder.display());
    wait_for("its processes' end", || (!is_used(&folder)).then_some(()));
    std::fs::remove_dir_all(&base).unwrap();
}
