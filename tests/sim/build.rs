//! Copies the decision core, `core/src`, into this crate, and puts the switches of the mutants into the copy. The
//! product's own source carries none of them.

use std::fs;
use std::path::{Path, PathBuf};

#[allow(
    dead_code,
    unreachable_pub,
    reason = "half of it is for the crate itself"
)]
#[path = "src/table.rs"]
mod table;

use table::{MUTANTS, Mutant};

fn main() {
    let manifest = PathBuf::from(var("CARGO_MANIFEST_DIR"));
    let core = manifest.join("../../core/src");
    let copy = PathBuf::from(var("OUT_DIR")).join("decide");
    println!("cargo::rerun-if-changed={}", core.display());
    println!("cargo::rerun-if-changed=src/table.rs");
    let _ = fs::remove_dir_all(&copy);
    must(fs::create_dir_all(&copy), "create the copy's directory");
    let mut found = 0;
    for entry in must(fs::read_dir(&core), "read core/src") {
        let path = must(entry, "read core/src").path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name.filter(|name| path.is_file() && name != "tests.rs") else {
            continue;
        };
        let source = must(fs::read_to_string(&path), "read a file of core/src");
        // The copy is a module of this crate, and nobody needs its tests.
        let source = source
            .replace("#[cfg(test)]\nmod tests;\n", "")
            .replace(
                "#[cfg(any(test, feature = \"fixtures\"))]\npub mod fixtures;\n",
                "",
            )
            .replace("crate::", "crate::decide::");
        let here: Vec<(usize, &Mutant)> = MUTANTS
            .iter()
            .enumerate()
            .filter(|(_, mutant)| mutant.file == name)
            .map(|(index, mutant)| (index + 1, mutant))
            .collect();
        found += here.len();
        must(
            fs::write(copy.join(&name), with_switches(&source, &here)),
            "write the copy",
        );
    }
    assert!(
        found == MUTANTS.len(),
        "some mutants are of files that core/src does not have"
    );
    let root = Path::new(&copy).join("lib.rs");
    let text = format!(
        "#[allow(clippy::all, unused, reason = \"a copy of core/src, linted where it is at home\")]\n\
         #[path = {root:?}]\npub mod decide;\n"
    );
    must(
        fs::write(copy.with_extension("rs"), text),
        "write the copy's root",
    );
}

/// A part of the source with what may stand in its place.
struct Place<'a> {
    at: usize,
    part: &'a str,
    number: usize,
    mutant: &'a Mutant,
}

/// Puts `if on(n) { broken } else { original }` in the place of every original.
fn with_switches(source: &str, mutants: &[(usize, &Mutant)]) -> String {
    let plain: Vec<String> = mutants
        .iter()
        .map(|(_, mutant)| mutant.original.replace(['«', '»'], ""))
        .collect();
    let mut places: Vec<Place<'_>> = mutants
        .iter()
        .zip(&plain)
        .map(|((number, mutant), plain)| find(source, *number, mutant, plain))
        .collect();
    places.sort_by_key(|place| (place.at, place.number));
    let mut text = String::new();
    let mut done = 0;
    let mut rest = places.as_slice();
    while let Some(first) = rest.first() {
        let same = rest
            .iter()
            .take_while(|other| (other.at, other.part) == (first.at, first.part))
            .count();
        let name = first.mutant.name;
        assert!(
            first.at >= done,
            "mutant {name}: its original overlaps another's"
        );
        text.push_str(&source[done..first.at]);
        let mut switch = String::new();
        for place in &rest[..same] {
            let (number, broken) = (place.number, place.mutant.broken);
            switch.push_str(&format!(
                "if crate::mutants::on({number}) {{ {broken} }} else "
            ));
        }
        switch.push_str(&format!("{{ {} }}", first.part));
        let statement = first.part.ends_with(';');
        text.push_str(&if statement {
            switch
        } else {
            format!("({switch})")
        });
        done = first.at + first.part.len();
        rest = &rest[same..];
    }
    text.push_str(&source[done..]);
    text
}

/// Where the original stands; where it marks a part of itself with « and », that is what is replaced.
fn find<'a>(source: &str, number: usize, mutant: &'a Mutant, plain: &str) -> Place<'a> {
    let found = source.matches(plain).count();
    let (name, file) = (mutant.name, mutant.file);
    assert!(
        found == 1,
        "mutant {name}: its original is to be found exactly once in {file}, and is found {found} times"
    );
    let at = source.find(plain).unwrap_or(0);
    let (before, part) = match mutant.original.split_once('«') {
        Some((before, rest)) => (before, rest.split('»').next().unwrap_or(rest)),
        None => ("", mutant.original),
    };
    Place {
        at: at + before.len(),
        part,
        number,
        mutant,
    }
}

fn var(name: &str) -> String {
    must(std::env::var(name), name)
}

fn must<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("could not {what}: {error}"))
}
