//! Whatever is in the environment and in the arguments, reading it does not panic, and an error has something to say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsec::cli;
use tarsec::config::{Config, OperatorConfig, settings::settings};

fuzz_target!(|input: Vec<(u8, String)>| {
    let names: Vec<&str> = settings().map(|setting| setting.name).collect();
    let variables = || {
        input
            .iter()
            .map(|(which, value)| (names[usize::from(*which) % names.len()].to_owned(), value.clone()))
    };
    match Config::from_iter(variables()) {
        Ok(config) => assert!(!format!("{config:?}").is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    drop(OperatorConfig::from_iter(variables()));
    drop(cli::parse(input.iter().map(|(_, value)| value.into())));
});
