//! `--help` and the table in docs/SETTINGS.md, both from [`SECTIONS`].

use std::fmt::Write;

use super::settings::{Fallback, SECTIONS, Setting};
use crate::ctl::help::commands;
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

/// Where help's lines end.
const WIDTH: usize = 96;

/// The text of `--help`.
#[must_use]
pub fn text() -> String {
    let mut out = String::from(
        "tarsec: at most one writable Tarantool instance per replica set, by a Consul lock and a lease\n\n\
         Usage: tarsec [COMMAND | --help | --version]\n\n\
         One agent runs beside each instance. Settings are environment variables; an empty one counts as not set, but\n\
         CLUSTER_NAME, CONSUL_KV_PREFIX and CONSUL_LOCK_SESSION_NAME must not be empty.\n\
         Durations have a unit (10s, 250ms, 1m 30s).\n",
    );
    out.push_str(&commands());
    for (heading, settings) in SECTIONS {
        let _ = writeln!(out, "\n{heading}:");
        for setting in *settings {
            let _ = writeln!(out, "  {}{}", setting.name, plain(&default_note(setting)));
            wrap(&mut out, "      ", &plain(setting.doc));
        }
    }
    out.push_str("\nSignals:\n");
    for (signal, meaning) in SIGNALS {
        let _ = writeln!(out, "  {signal}");
        wrap(&mut out, "      ", meaning);
    }
    out.push_str("\nExit codes:\n");
    for exit in Exit::ALL {
        wrap(
            &mut out,
            "  ",
            &format!("{}  {}", exit.code(), exit.meaning()),
        );
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

/// Appends `text` with every line beginning with `indent` and ending before [`WIDTH`].
fn wrap(out: &mut String, indent: &str, text: &str) {
    let mut line = String::from(indent);
    for word in text.split(' ') {
        if line.len() > indent.len() && line.len() + 1 + word.len() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = String::from(indent);
        } else if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::settings::settings;
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

    #[test]
    fn help_documents_every_variable_signal_and_exit_code() {
        let text = text();
        for name in settings().map(|setting| setting.name) {
            assert!(text.contains(name), "{name}");
        }
        for (signal, _) in SIGNALS {
            assert!(text.contains(signal), "{signal}");
        }
        for exit in Exit::ALL {
            assert!(text.contains(&format!("\n  {}  ", exit.code())), "{exit:?}");
        }
        assert!(text.lines().all(|line| line.len() <= 110), "{text}");
    }
}
