//! The mark of a mutant: the simulation breaks the core in these places, one at a time, to show that it notices.

/// `sound!(this; Mutant => that)` is `this`. A reader of the core skips the rest.
///
/// In the simulation, which asks for the feature `mutants`, it is `that` while the mutant of this name is on (`mutants.rs`
/// has all of them). Without that feature `that` is not compiled.
#[cfg(not(feature = "mutants"))]
macro_rules! sound {
    ($sound:expr $(; $mutant:ident => $broken:expr)+) => {
        $sound
    };
}

#[cfg(feature = "mutants")]
macro_rules! sound {
    ($sound:expr $(; $mutant:ident => $broken:expr)+) => {
        $(if $crate::mutants::on($crate::mutants::Mutant::$mutant) { $broken } else)+ { $sound }
    };
}
