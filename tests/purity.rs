//! The shape of the sources, checked by reading them.
#![allow(clippy::unwrap_used, reason = "a test may stop at what it cannot read")]

use std::fs;
use std::path::{Path, PathBuf};

/// A file past this is two things.
const LINES_MAX: usize = 600;

/// Words that have no place where decisions are made: I/O, clocks and logs. That the core names no adapter, the compiler
/// sees to: it is a crate of its own.
const IMPURE: &[&str] = &[
    "tokio",
    "async",
    "await",
    "Instant",
    "SystemTime",
    "tracing",
];

/// The core's rooms, the lowest first: each imports from those below it, and from itself.
const ROOMS: &[&str] = &[
    "words",
    "event",
    "plan",
    "state",
    "questions",
    "input",
    "rules",
];

/// The files with that extension, wherever they are below the directory.
fn sources(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn core() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("core/src")
}

/// Those of the agent and of its core.
fn all_sources(extension: &str) -> Vec<PathBuf> {
    [src(), core()]
        .iter()
        .flat_map(|directory| sources(directory, extension))
        .collect()
}

/// Whether `word` stands in `line`, not as part of a longer one.
fn names(line: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

/// The impure words in a source, comments aside, each with its line.
fn impurities(source: &str) -> Vec<(usize, &'static str)> {
    let code = source
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.enumerate()
        .flat_map(|(index, line)| {
            let words = IMPURE.iter().copied().filter(move |word| names(line, word));
            words.map(move |word| (index + 1, word))
        })
        .collect()
}

#[test]
fn decisions_are_pure() {
    for path in sources(&core(), "rs") {
        let found = impurities(&fs::read_to_string(&path).unwrap());
        assert!(found.is_empty(), "{}: {found:?}", path.display());
    }
}

#[test]
fn impurity_is_noticed() {
    for line in [
        "use tokio::time;",
        "async fn f() {}",
        "let now = std::time::Instant::now();",
    ] {
        assert_eq!(impurities(line).len(), 1, "{line}");
    }
    for line in [
        "struct InstantLike;",
        "// async",
        "use crate::timing;",
        "let tarantool = 1;",
    ] {
        assert!(impurities(line).is_empty(), "{line}");
    }
}

#[test]
fn no_source_is_longer_than_600_lines() {
    let all = ["rs", "lua"].map(all_sources);
    for path in all.iter().flatten() {
        let lines = fs::read_to_string(path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines", path.display());
    }
}

/// Every key begins with this setting, so a file that spells one must name it.
#[test]
fn one_file_knows_how_keys_are_spelled() {
    // The last one is settings for tests.
    let told = ["keys.rs", "config", "consul/testing.rs"].map(|place| src().join(place));
    for path in all_sources("rs") {
        let source = fs::read_to_string(&path).unwrap();
        let is_told = told.iter().any(|told| path.starts_with(told));
        assert!(
            is_told || !names(&source, "kv_prefix"),
            "{}",
            path.display()
        );
    }
}

/// What a source of the room with this rank imports from above, or from none of the rooms.
fn imports_from_above(rank: usize, source: &str) -> Vec<&str> {
    let code = source
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|path| path.split(|it: char| !it.is_alphanumeric() && it != '_'))
        .filter_map(|mut path| path.next())
        .filter(|room| !ROOMS[..=rank].contains(room))
        .collect()
}

#[test]
fn each_room_of_the_core_imports_from_those_below_it() {
    for (rank, room) in ROOMS.iter().enumerate() {
        let mut files = vec![core().join(room).with_extension("rs")];
        files.retain(|file| file.exists());
        if core().join(room).is_dir() {
            files.extend(sources(&core().join(room), "rs"));
        }
        assert!(!files.is_empty(), "{room}");
        for path in files {
            let source = fs::read_to_string(&path).unwrap();
            let found = imports_from_above(rank, &source);
            assert!(found.is_empty(), "{}: {found:?}", path.display());
        }
    }
}

#[test]
fn an_import_from_above_is_noticed() {
    let rank = |room| ROOMS.iter().position(|it| *it == room).unwrap();
    let source = "use crate::state::State; // crate::rules\nlet now = crate::words::timing::Tick::default();";
    assert!(imports_from_above(rank("questions"), source).is_empty());
    assert_eq!(imports_from_above(rank("event"), source), ["state"]);
    assert_eq!(
        imports_from_above(rank("rules"), "use crate::router::RouterState;"),
        ["router"]
    );
}
