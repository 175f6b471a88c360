//! Which Tarantool the tests start.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The variable that names another Tarantool than the one in `PATH`: a program's path.
const VARIABLE: &str = "TARANTOOL";

/// The program that every instance of the tests, the demo, the benchmark and chaos runs: `TARANTOOL`, or `tarantool`
/// from `PATH`.
#[must_use]
pub fn tarantool() -> PathBuf {
    std::env::var_os(VARIABLE)
        .filter(|path| !path.is_empty())
        .map_or_else(|| "tarantool".into(), PathBuf::from)
}

/// Tarantool's version, as far as the tests tell versions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 2 of 2.11.9.
    pub major: u32,
    /// 11 of 2.11.9.
    pub minor: u32,
    /// 9 of 2.11.9.
    pub patch: u32,
}

impl Version {
    /// A version by its three numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Reads the beginning of what `tarantool --version` prints: `Tarantool 2.11.9-0-g54aebb096`.
    fn parse(text: &str) -> Option<Self> {
        let number = text.lines().next()?.split_whitespace().find(|word| {
            word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.')
        })?;
        let mut parts = number.split(['.', '-', '+']).map(str::parse);
        let mut next = || parts.next()?.ok();
        Some(Self::new(next()?, next()?, next()?))
    }

    /// The version of [`tarantool()`], asked once.
    ///
    /// # Panics
    /// When the program cannot be run or says no version: no test can go on then.
    #[must_use]
    pub fn of_tests() -> Self {
        static VERSION: OnceLock<Version> = OnceLock::new();
        *VERSION.get_or_init(|| {
            let program = tarantool();
            let output = Command::new(&program).arg("--version").output();
            let output = output.unwrap_or_else(|error| panic!("cannot run {program:?}: {error}"));
            let text = String::from_utf8_lossy(&output.stdout);
            Self::parse(&text).unwrap_or_else(|| panic!("{program:?} says no version: {text}"))
        })
    }

    /// Whether a test that holds on some versions alone is to be left out on this one; says so by name.
    ///
    /// `holds` is asked with the version that runs, `why` completes the sentence "skipped on 2.6.0: test: …".
    #[must_use]
    pub fn skips(test: &str, holds: impl Fn(Self) -> bool, why: &str) -> bool {
        let version = Self::of_tests();
        if holds(version) {
            return false;
        }
        crate::say_skipped(&format!("on {version}: {test}: {why}"));
        true
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn a_version_is_read_from_what_the_program_says() {
        for (text, version) in [
            (
                "Tarantool 2.6.0-0-g47aa4e01e\nTarget: x",
                Version::new(2, 6, 0),
            ),
            ("Tarantool 2.11.9-0-g54aebb096", Version::new(2, 11, 9)),
            (
                "Tarantool Enterprise 3.8.0-0-gdce7be8a7",
                Version::new(3, 8, 0),
            ),
        ] {
            assert_eq!(Version::parse(text), Some(version), "{text}");
        }
        assert_eq!(Version::parse("Lua 5.1"), None);
        assert!(Version::new(2, 11, 0) > Version::new(2, 6, 0));
    }
}
