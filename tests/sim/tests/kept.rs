//! What simulation once found, in the form that outlasts changes of what seeds draw: parameters and a list of faults.
//! Each file in `regressions` names the mutant that undoes what was mended. With it the invariant must fail, so that the
//! scenario still leads there; without it nothing may. `sim keep --only <mutant>` makes such a file.

use std::path::{Path, PathBuf};

use tarsec_sim::kept::{SEEDS, Scenario};
use tarsec_sim::mutants::switch_to;

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let entries = std::fs::read_dir(&dir).expect("tests/regressions");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry of tests/regressions").path())
        .collect();
    files.sort();
    files
}

/// One test for all: the switch of the mutants is one for the whole process.
#[test]
fn what_was_found_is_found_again_when_its_mending_is_undone_and_only_then() {
    let mut wrong = Vec::new();
    let files = files();
    assert!(files.len() >= 6, "files are missing");
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(&file).expect("a file of tests/regressions");
        let scenario: Scenario =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mutant = scenario
            .mutant()
            .unwrap_or_else(|| panic!("{name}: there is no mutant \"{}\"", scenario.mutant));
        switch_to(Some(mutant));
        let (fails, _) = scenario.plays();
        switch_to(None);
        let (fails_without, others) = scenario.plays();
        if fails == 0 {
            wrong.push(format!(
                "{name}: \"{}\" is not found in {SEEDS} runs any more",
                scenario.mutant
            ));
        }
        if fails_without > 0 || !others.is_empty() {
            wrong.push(format!(
                "{name}: {fails_without} of {SEEDS} runs fail without the mutant; {others:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
