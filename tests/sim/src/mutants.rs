//! The mutants of the core, each of which the simulation must catch.

pub use tarsec_core::mutants::{Mutant, switch_to};

/// Those that chance finds too rarely: their scenarios are kept (`tests/kept.rs`), and the table says so.
pub const ONLY_KEPT: &[Mutant] = &[
    Mutant::ReturnedNotWaitedFor,
    Mutant::PromisesOnAnothersRecord,
];

/// The one that is called so.
#[must_use]
pub fn called(name: &str) -> Option<Mutant> {
    let mut all = Mutant::ALL.iter().copied();
    all.find(|mutant| mutant.name() == name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The core's code, without its tests and without the list of the mutants.
    fn core() -> String {
        code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../core/src"))
    }

    fn code(place: &Path) -> String {
        let here = fs::read_dir(place)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let here = here.filter(|path| !path.ends_with("mutants.rs") && !path.ends_with("tests"));
        here.map(|path| match path.is_dir() {
            true => code(&path),
            false => fs::read_to_string(path).unwrap(),
        })
        .collect()
    }

    #[test]
    fn each_stands_in_the_core() {
        let core = core();
        for mutant in Mutant::ALL {
            let word = format!(" {mutant:?} =>");
            // Twice where a rule is kept in two places: a mutant takes the whole rule away.
            assert!((1..=2).contains(&core.matches(&word).count()), "{word}");
        }
    }

    #[test]
    fn each_has_a_name_of_its_own() {
        for mutant in Mutant::ALL {
            assert_eq!(called(mutant.name()), Some(*mutant));
        }
    }
}
