//! The systemd units, as systemd reads them, and what they promise about the agent's rights.
#![allow(clippy::unwrap_used, reason = "a test may stop at what it cannot read")]

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const UNITS: [&str; 2] = ["tarsec.service", "tarsec@.service"];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("systemd")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// What a unit sets, comments aside.
fn settings(name: &str) -> Vec<String> {
    let text = read(name);
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_agent_has_a_user_of_its_own_with_the_right_to_kill_and_no_other() {
    for unit in UNITS {
        let settings = settings(unit);
        let values = |name: &str| {
            let lines = settings.iter().filter_map(|line| line.split_once('='));
            let own = lines.filter(|(key, _)| *key == name);
            own.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
        };
        for (name, value) in [
            ("User", "tarsec"),
            ("Group", "tarsec"),
            ("CapabilityBoundingSet", "CAP_KILL"),
            ("AmbientCapabilities", "CAP_KILL"),
            ("NoNewPrivileges", "yes"),
        ] {
            assert_eq!(values(name), [value], "{name} in {unit}");
        }
        // Each of them would hide the instance's process or its socket, and with it a death and a hang.
        for hides in [
            "ProtectProc",
            "ProcSubset",
            "PrivatePIDs",
            "PrivateUsers",
            "PrivateNetwork",
        ] {
            assert_eq!(values(hides), [""; 0], "{hides} in {unit}");
        }
        assert_eq!(values("SupplementaryGroups"), [""; 0], "{unit}");
    }
    let users = settings("tarsec.sysusers");
    assert!(
        matches!(&users[..], [line] if line.starts_with("u tarsec - ")),
        "{users:?}"
    );
}

#[test]
fn the_two_units_differ_in_what_one_instance_of_several_needs_alone() {
    let [one, several] = UNITS.map(settings);
    let as_one = |line: &String| {
        line.replace("tarantool@%i.service", "tarantool.service")
            .replace("/etc/tarsec/%i.env", "/etc/tarsec/tarsec.env")
            .replace(
                "the Tarantool instance %i",
                "the Tarantool instance on this host",
            )
    };
    assert_eq!(several.iter().map(as_one).collect::<Vec<_>>(), one);
}

#[test]
fn systemd_finds_nothing_to_complain_about() {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("units");
    fs::create_dir_all(&place).unwrap();
    for (unit, file) in UNITS
        .into_iter()
        .zip(["tarsec.service", "tarsec@orders.service"])
    {
        // It looks whether the program is there.
        let text = read(unit).replace("/usr/bin/tarsec", env!("CARGO_BIN_EXE_tarsec"));
        let file = place.join(file);
        fs::write(&file, text).unwrap();
        let mut command = Command::new("systemd-analyze");
        let verified = match command.args(["verify", "--man=no"]).arg(&file).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let skipped = b"the units: skipped, there is no systemd-analyze\n";
                let _ = std::io::stderr().write_all(skipped);
                return;
            }
            verified => verified.unwrap(),
        };
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(
            verified.status.success() && said.is_empty(),
            "{unit}: {said}"
        );
    }
}
