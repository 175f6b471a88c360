use proptest::prelude::*;

use super::*;
use crate::config::settings::settings;
use crate::exit::Exit;

fn parsed(arguments: &[&str]) -> Result<Command, UsageError> {
    parse(arguments.iter().map(OsString::from))
}

proptest! {
    #[test]
    fn any_arguments_are_a_command_or_a_sentence(
        arguments in prop::collection::vec(
            prop_oneof![any::<String>(), "(switchover|pause|resume|history|status|completion|--[a-z]{0,9}(=.{0,9})?)"],
            0..5,
        ),
    ) {
        if let Err(error) = parse(arguments.iter().map(OsString::from)) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

fn order(line: &str) -> Order {
    let words: Vec<&str> = line.split(' ').collect();
    match parsed(&words) {
        Ok(Command::Order(order)) => order,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn runs_without_arguments() {
    assert_eq!(parsed(&[]), Ok(Command::Run));
}

fn shown(arguments: &[&str]) -> String {
    match parsed(arguments) {
        Ok(Command::Show(text)) => text,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

#[test]
fn knows_the_two_flags_in_two_spellings_each() {
    assert!(shown(&["--help"]).contains("\nUsage: tarsec "));
    assert_eq!(shown(&["-h"]), shown(&["--help"]));
    let version = concat!("tarsec ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(shown(&["--version"]), version);
    assert_eq!(shown(&["-V"]), version);
}

#[test]
fn help_documents_every_variable_signal_and_exit_code() {
    let text = shown(&["--help"]);
    for name in settings().map(|setting| setting.name) {
        assert!(text.contains(&format!("\n  {name}")), "{name}");
    }
    for (signal, _) in config::help::SIGNALS {
        assert!(text.contains(signal), "{signal}");
    }
    for exit in Exit::ALL {
        assert!(text.contains(&format!("\n  {}  ", exit.code())), "{exit:?}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
}

#[test]
fn help_of_a_command_fits_a_terminal_and_lists_its_exit_codes() {
    let codes = |name| -> Vec<String> {
        let text = shown(&[name, "--help"]);
        assert_eq!(text, shown(&[name, "-h"]));
        assert!(text.contains(&format!("\nUsage: tarsec {name} ")), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        let (_, codes) = text.split_once("Exit codes:\n").unwrap();
        let code = |line: &str| line.get(..4).map(|code| code.trim().to_owned());
        codes
            .lines()
            .filter_map(code)
            .filter(|code| !code.is_empty())
            .collect()
    };
    assert_eq!(codes("status"), ["0", "1", "2", "9", "10"]);
    assert_eq!(
        codes("switchover"),
        ["0", "1", "2", "6", "7", "8", "9", "11"]
    );
    assert_eq!(codes("pause"), ["0", "1", "2", "6", "8", "9", "11"]);
    assert_eq!(codes("resume"), codes("pause"));
    assert_eq!(codes("history"), ["0", "1", "2", "9"]);
    assert_eq!(codes("forget"), ["0", "1", "2", "6", "9", "11"]);
}

#[test]
fn every_shell_gets_a_script_that_knows_commands_and_flags() {
    for shell in ["bash", "fish", "zsh"] {
        let script = shown(&["completion", shell]);
        for word in [
            "tarsec",
            "switchover",
            "history",
            "master-is-down",
            "no-wait",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn refuses_everything_else_with_a_sentence() {
    for (argument, nearest) in [
        ("run", ""),
        ("--config", ""),
        ("-v", ""),
        ("", ""),
        ("statsu", " (the nearest one is status)"),
        ("--versoin", " (the nearest one is --version)"),
    ] {
        let error = parsed(&[argument]).expect_err("not an argument");
        let expected = format!(
            "{argument} is not an argument{nearest}, allowed are --help, --version and the commands status, \
             switchover, pause, resume, history, forget and completion; settings come from the environment"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn values_stand_behind_a_space_or_an_equals_sign() {
    for line in [
        "switchover --to b --replicaset r --timeout 500ms --yes --no-wait",
        "switchover --to=b --replicaset=r --timeout=500ms -y --no-wait",
    ] {
        let Order::Switchover(args) = order(line) else {
            panic!("{line}");
        };
        assert_eq!(args.to.as_deref(), Some("b"));
        assert_eq!(args.replicaset.as_deref(), Some("r"));
        assert_eq!(args.catch_up, Duration::from_millis(500));
        assert!(args.yes && args.no_wait);
    }
}

#[test]
fn a_pause_is_of_a_replica_set_unless_the_cluster_is_named() {
    let reach = |line| match order(line) {
        Order::Pause(PauseArgs { reach, .. }) | Order::Resume(ResumeArgs { reach, .. }) => reach,
        other
        @ (Order::Status(_) | Order::Switchover(_) | Order::History(_) | Order::Forget(_)) => {
            panic!("{other:?}")
        }
    };
    assert_eq!(reach("pause").scope(), Scope::ReplicaSet(None));
    let named = reach("resume --replicaset r");
    assert_eq!(named.scope(), Scope::ReplicaSet(Some("r")));
    let all = reach("pause --cluster --why racks");
    assert_eq!(all.scope(), Scope::Cluster);
}

#[test]
fn status_and_history_take_a_replica_set_by_itself() {
    for line in [
        "status --watch r",
        "status r --watch",
        "status --replicaset r --watch",
    ] {
        let Order::Status(args) = order(line) else {
            panic!("{line}");
        };
        assert_eq!(args.only.name(), Some("r"), "{line}");
        assert!(args.watch && !args.json && !args.no_wait, "{line}");
    }
    let Order::History(args) = order("history r --json") else {
        panic!("history");
    };
    assert_eq!(args.only.name(), Some("r"));
    assert!(args.json);
}

#[test]
fn the_last_of_equal_flags_counts() {
    let Order::Switchover(args) = order("switchover --to a --yes --to b --yes") else {
        panic!("switchover");
    };
    assert_eq!(args.to.as_deref(), Some("b"));
    assert_eq!(args.catch_up, Duration::from_secs(2));
}

#[test]
fn refuses_what_a_command_cannot_be_told() {
    for (line, words) in [
        (
            "status --yes",
            "--yes is not an argument of status, see tarsec status --help",
        ),
        (
            "status --jsno",
            "--jsno is not an argument of status (the nearest one is --json)",
        ),
        ("status a b", "b is not an argument of status"),
        ("status r --replicaset s", "both given"),
        ("status --json=1", "1 is not an argument of status"),
        ("switchover b", "b is not an argument of switchover"),
        (
            "switchover --to",
            "--to is \"\", allowed is something, after a space or =",
        ),
        ("switchover --to=", "--to is \"\""),
        ("switchover --to --yes", "--to is \"--yes\""),
        ("switchover --timeout 2", "--timeout is \"2\""),
        ("switchover --timeout 2m", "at most 1m"),
        ("switchover --timeout 0s", "--timeout is \"0s\""),
        (
            "pause --replicaset r --cluster",
            "--replicaset and --cluster are both given, allowed is one of them",
        ),
        (
            "resume --replicaset r --cluster --master-is-down",
            " are both given, allowed is one of them",
        ),
        (
            "history ",
            "REPLICASET is \"\", allowed is the beginning of a replica set's UUID",
        ),
        (
            "resume --cluster --master-is-down",
            "--cluster and --master-is-down are both given, allowed is one of them",
        ),
        ("completion", "SHELL is \"\", allowed is bash, fish or zsh"),
        (
            "completion ksh",
            "SHELL is \"ksh\", allowed is bash, fish or zsh",
        ),
        (
            "completion zsh fish",
            "fish is not an argument of completion",
        ),
        ("history --watch", "--watch is not an argument of history"),
    ] {
        let words_of_line: Vec<&str> = line.split(' ').collect();
        let error = parsed(&words_of_line).expect_err(line).to_string();
        assert!(error.contains(words), "{line}: {error}");
    }
}
