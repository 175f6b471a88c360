//! What `--help` says of settings, signals and exit codes, and the table in docs/SETTINGS.md; the settings of both are
//! [`SECTIONS`].

use std::fmt::Write;

use super::settings::{Fallback, SECTIONS, Setting};
use crate::exit::Exit;

/// Each signal, and what the agent does on it.
pub const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT, SIGQUIT",
        "make the instance read-only, let a replica catch up, release the lock, deregister",
    ),
    (
        "one of them again",
        "stop at once; the lease runs out by itself",
    ),
    ("SIGHUP", "nothing: settings are read at the start alone"),
    (
        "SIGUSR1",
        "print the state of Consul and Tarantool on stdout, on one screen",
    ),
    (
        "SIGUSR2",
        "print all of the agent on stdout: settings, timers, plan, state, transitions",
    ),
];

/// What stands below the commands in `tarsec --help`; `clap` breaks its lines.
#[must_use]
pub fn below() -> String {
    let mut out = String::from(
        "Without a command it is the agent, one beside each instance. The commands talk to Consul alone, so they work \
         from anywhere, and read CLUSTER_NAME, CONSUL_* and LOG_*; tarsec COMMAND --help says more.\n\n\
         Settings are environment variables; an empty one counts as not set, but CLUSTER_NAME, CONSUL_KV_PREFIX and \
         CONSUL_LOCK_SESSION_NAME must not be empty. Durations have a unit (10s, 250ms, 1m 30s).\n",
    );
    for (heading, settings) in SECTIONS {
        let _ = writeln!(out, "\n{heading}:");
        for setting in *settings {
            let (note, doc) = (plain(&default_note(setting)), plain(setting.doc));
            let _ = writeln!(out, "  {}{note}\n      {doc}", setting.name);
        }
    }
    out.push_str("\nSignals:\n");
    for (signal, meaning) in SIGNALS {
        let _ = writeln!(out, "  {signal}\n      {meaning}");
    }
    out.push_str("\nExit codes:\n");
    for exit in Exit::ALL {
        let _ = writeln!(out, "  {}  {}", exit.code(), exit.meaning());
    }
    out
}

/// The table in docs/SETTINGS.md, without the markers around it.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("| variable | default | |\n| --- | --- | --- |\n");
    for (heading, settings) in SECTIONS {
        let _ = writeln!(out, "| **{heading}** | | |");
        for Setting {
            name,
            default,
            doc,
            secret: _,
        } in *settings
        {
            let default = match default {
                Fallback::Value(value) => format!("`{value}`"),
                Fallback::Derived(words) => (*words).to_owned(),
                Fallback::Unset => "–".to_owned(),
            };
            let _ = writeln!(out, "| `{name}` | {default} | {doc} |");
        }
    }
    out
}

fn default_note(setting: &Setting) -> String {
    match setting.default {
        Fallback::Value(value) => format!(" (default: {value})"),
        Fallback::Derived(words) => format!(" (default: {words})"),
        Fallback::Unset => String::new(),
    }
}

fn plain(text: &str) -> String {
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_page_shows_the_settings_that_the_code_has() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SETTINGS.md");
        let page = std::fs::read_to_string(path).unwrap();
        let shown = page
            .split_once("<!-- settings -->\n")
            .and_then(|(_, rest)| rest.split_once("<!-- /settings -->"))
            .map(|(shown, _)| shown.trim());
        let expected = markdown();
        assert!(
            shown == Some(expected.trim()),
            "put this between <!-- settings --> and <!-- /settings --> in docs/SETTINGS.md:\n\n{expected}"
        );
    }
}
