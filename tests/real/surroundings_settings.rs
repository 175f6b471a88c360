//! Arguments and environments that are wrong: every sentence, and the code that supervisors go by.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tarsec::config::settings::settings;
use tarsec::exit::Exit;

/// An agent that refuses its settings does so at once; this machine may be busy.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The binary, with nothing in its environment but this. A process that accepts what it should refuse is killed: its
/// status has no code then.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tarsec"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let started = Instant::now();
    while child.try_wait().expect("it is our child").is_none() {
        if started.elapsed() > REFUSAL_TIMEOUT {
            child.kill().expect("it is our child");
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("it is our child")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Settings that must be refused, and all that is said about them.
struct Case(
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

fn assert_refused(cases: &[Case]) {
    let mut wrong = Vec::new();
    for Case(environment, sentences) in cases {
        let output = run(&[], environment);
        let expected: String = sentences
            .iter()
            .map(|line| format!("tarsec: {line}\n"))
            .collect();
        let found = text(&output.stderr);
        if output.status.code() != Some(2) || found != expected || !output.stdout.is_empty() {
            let status = output.status;
            wrong.push(format!(
                "{environment:?}\n  {status}\n  found:\n{found}  expected:\n{expected}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const DURATIONS_OUT_OF_RANGE_OR_WITHOUT_A_UNIT: &[Case] = &[
    Case(
        &[("MASTER_LEASE", "1s")],
        &["MASTER_LEASE is 1s, allowed is 2s to 1m"],
    ),
    Case(
        &[("MASTER_LEASE", "61s"), ("CONSUL_LOCK_TTL", "90s")],
        &["MASTER_LEASE is 1m 1s, allowed is 2s to 1m"],
    ),
    Case(
        &[("MASTER_LEASE", "10")],
        &[
            "MASTER_LEASE is \"10\", allowed is a number with its unit (10 of what?), such as 10s or 250ms",
        ],
    ),
    Case(
        &[("MASTER_LEASE", "soon")],
        &["MASTER_LEASE is \"soon\", allowed is a duration such as 10s, 250ms or 1m 30s"],
    ),
    Case(
        &[("CONSUL_LOCK_TTL", "9s"), ("MASTER_LEASE", "3s")],
        &[
            "CONSUL_LOCK_TTL is 9s, allowed is at least MASTER_LEASE (3s) and from 10s to 86400s, as Consul has it",
        ],
    ),
    Case(
        &[("CONSUL_LOCK_TTL", "86401s")],
        &[
            "CONSUL_LOCK_TTL is 1day 1s, allowed is at least MASTER_LEASE (10s) and from 10s to 86400s, as Consul has it",
        ],
    ),
    Case(
        &[("MASTER_LEASE", "20s"), ("CONSUL_LOCK_TTL", "15s")],
        &[
            "CONSUL_LOCK_TTL is 15s, allowed is at least MASTER_LEASE (20s) and from 10s to 86400s, as Consul has it",
        ],
    ),
    Case(
        &[("HEALTHCHECK_TIMEOUT", "6s")],
        &[
            "HEALTHCHECK_TIMEOUT is 6s, allowed with MASTER_LEASE=10s is more than 0s and at most 5s: two refreshes (a quarter of the lease each) and one timeout must fit into the lease",
        ],
    ),
    Case(
        &[("HEALTHCHECK_TIMEOUT", "0s")],
        &[
            "HEALTHCHECK_TIMEOUT is 0s, allowed with MASTER_LEASE=10s is more than 0s and at most 5s: two refreshes (a quarter of the lease each) and one timeout must fit into the lease",
        ],
    ),
    Case(
        &[("HEALTHCHECK_INTERVAL", "6s")],
        &[
            "HEALTHCHECK_INTERVAL is 6s, allowed with MASTER_LEASE=10s is 10ms to 5s, half the lease",
        ],
    ),
    Case(
        &[("HEALTHCHECK_INTERVAL", "9ms")],
        &[
            "HEALTHCHECK_INTERVAL is 9ms, allowed with MASTER_LEASE=10s is 10ms to 5s, half the lease",
        ],
    ),
    Case(
        &[("LIVENESS_INTERVAL", "9ms")],
        &["LIVENESS_INTERVAL is 9ms, allowed is 10ms to HEALTHCHECK_INTERVAL (1s)"],
    ),
    Case(
        &[("LIVENESS_INTERVAL", "2s")],
        &["LIVENESS_INTERVAL is 2s, allowed is 10ms to HEALTHCHECK_INTERVAL (1s)"],
    ),
    Case(
        &[("CONSUL_LOCK_MONITOR_RETRY_INTERVAL", "9ms")],
        &["CONSUL_LOCK_MONITOR_RETRY_INTERVAL is \"9ms\", allowed is 10ms to 1m"],
    ),
    Case(
        &[("CONSUL_LOCK_MONITOR_RETRY_INTERVAL", "61s")],
        &["CONSUL_LOCK_MONITOR_RETRY_INTERVAL is \"61s\", allowed is 10ms to 1m"],
    ),
    Case(
        &[("CONSUL_DEREGISTER_SERVICE_AFTER", "59s")],
        &[
            "CONSUL_DEREGISTER_SERVICE_AFTER is \"59s\", allowed is 1m to 9years 11months 27days 21h 50m 24s",
        ],
    ),
    Case(
        &[("CONSUL_DEREGISTER_SERVICE_AFTER", "88000h")],
        &[
            "CONSUL_DEREGISTER_SERVICE_AFTER is \"88000h\", allowed is 1m to 9years 11months 27days 21h 50m 24s",
        ],
    ),
];

#[test]
fn durations_out_of_range_or_without_a_unit_are_refused() {
    assert_refused(DURATIONS_OUT_OF_RANGE_OR_WITHOUT_A_UNIT);
}

const ADDRESSES_AND_SECRETS: &[Case] = &[
    Case(
        &[("TARANTOOL_ADDR", "3301")],
        &[
            "TARANTOOL_ADDR is \"3301\", allowed is host:port (an IPv6 address in brackets) or the absolute path of a unix socket",
        ],
    ),
    Case(
        &[("TARANTOOL_ADDR", "db1:0")],
        &[
            "TARANTOOL_ADDR is \"db1:0\", allowed is host:port (an IPv6 address in brackets) or the absolute path of a unix socket",
        ],
    ),
    Case(
        &[("TARANTOOL_ADDR", ":3301")],
        &[
            "TARANTOOL_ADDR is \":3301\", allowed is host:port (an IPv6 address in brackets) or the absolute path of a unix socket",
        ],
    ),
    Case(
        &[("TARANTOOL_ADDR", "relative.sock")],
        &[
            "TARANTOOL_ADDR is \"relative.sock\", allowed is host:port (an IPv6 address in brackets) or the absolute path of a unix socket",
        ],
    ),
    Case(
        &[("ANNOUNCE_ADDR", "0.0.0.0:3301")],
        &[
            "ANNOUNCE_ADDR is \"0.0.0.0:3301\", allowed is host:port (an IPv6 address in brackets) as others can reach it, or :port",
        ],
    ),
    Case(
        &[("ANNOUNCE_ADDR", "db1")],
        &[
            "ANNOUNCE_ADDR is \"db1\", allowed is host:port (an IPv6 address in brackets) as others can reach it, or :port",
        ],
    ),
    Case(
        &[
            ("TARANTOOL_USER", "u"),
            ("TARANTOOL_PASSWORD_FILE", "/nowhere/secret"),
        ],
        &[
            "could not read the file that TARANTOOL_PASSWORD_FILE names, /nowhere/secret: No such file or directory (os error 2)",
        ],
    ),
    Case(
        &[
            ("TARANTOOL_USER", "u"),
            ("TARANTOOL_PASSWORD_FILE", "/dev/null"),
        ],
        &["TARANTOOL_PASSWORD_FILE names /dev/null, which is empty"],
    ),
    Case(
        &[("CONSUL_HTTP_ADDR", "ftp://consul")],
        &[
            "CONSUL_HTTP_ADDR is \"ftp://consul\", allowed is host:port, http://host:port or https://host:port, without a path",
        ],
    ),
    Case(
        &[("CONSUL_HTTP_ADDR", "unix:///consul.sock")],
        &[
            "CONSUL_HTTP_ADDR is \"unix:///consul.sock\", allowed is host:port, http://host:port or https://host:port, without a path; unix sockets are not supported",
        ],
    ),
    Case(
        &[("CONSUL_HTTP_ADDR", "http://consul:8500/v1")],
        &[
            "CONSUL_HTTP_ADDR is \"http://consul:8500/v1\", allowed is host:port, http://host:port or https://host:port, without a path",
        ],
    ),
    Case(
        &[("CONSUL_HTTP_TOKEN", "a\u{a0}b")],
        &["CONSUL_HTTP_TOKEN is \"(redacted)\", allowed is visible ASCII without blanks"],
    ),
    Case(
        &[("CONSUL_HTTP_TOKEN_FILE", "/nowhere/token")],
        &[
            "could not read the file that CONSUL_HTTP_TOKEN_FILE names, /nowhere/token: No such file or directory (os error 2)",
        ],
    ),
    Case(
        &[("CONSUL_HTTP_AUTH", ":secret")],
        &["CONSUL_HTTP_AUTH is \"(redacted)\", allowed is user:password"],
    ),
];

#[test]
fn addresses_and_secrets_are_refused() {
    assert_refused(ADDRESSES_AND_SECRETS);
}

const NAMES_NUMBERS_AND_CHOICES: &[Case] = &[
    Case(
        &[("ELECTION", "best")],
        &["ELECTION is \"best\", allowed is smart, idle or first"],
    ),
    Case(
        &[("ELECTION_WINDOW", "1ms")],
        &["ELECTION_WINDOW is \"1ms\", allowed is 10ms to 10s"],
    ),
    Case(
        &[("MAX_LAG_ROWS", "-1")],
        &["MAX_LAG_ROWS is \"-1\", allowed is a whole number, 0 to 18446744073709551615"],
    ),
    Case(
        &[("MAX_IDLE", "2days")],
        &["MAX_IDLE is \"2days\", allowed is 0s to 1day"],
    ),
    Case(
        &[("REPLICA_MAX_IDLE", "2days")],
        &["REPLICA_MAX_IDLE is \"2days\", allowed is 0s to 1day"],
    ),
    Case(
        &[("FAILOVER_COOLDOWN", "60")],
        &[
            "FAILOVER_COOLDOWN is \"60\", allowed is a number with its unit (60 of what?), such as 10s or 250ms",
        ],
    ),
    Case(
        &[("MEMBER_INTERVAL", "2h")],
        &["MEMBER_INTERVAL is \"2h\", allowed is 1s to 1h"],
    ),
    Case(
        &[("GUARD", "none")],
        &["GUARD is \"none\", allowed is lease or strict"],
    ),
    Case(
        &[("FAILSAFE", "true")],
        &["FAILSAFE is \"true\", allowed is on or off"],
    ),
    Case(
        &[("CONSUL_LOCK_MONITOR_RETRIES", "0")],
        &["CONSUL_LOCK_MONITOR_RETRIES is \"0\", allowed is a whole number from 1 to 1000"],
    ),
    Case(
        &[("CONSUL_LOCK_MONITOR_RETRIES", "1001")],
        &["CONSUL_LOCK_MONITOR_RETRIES is \"1001\", allowed is a whole number from 1 to 1000"],
    ),
    Case(
        &[("PRIORITY", "high")],
        &["PRIORITY is \"high\", allowed is a whole number"],
    ),
    Case(
        &[("PRIORITY", "9223372036854775808")],
        &["PRIORITY is \"9223372036854775808\", allowed is a whole number"],
    ),
    Case(
        &[("CLUSTER_NAME", "a/b")],
        &["CLUSTER_NAME is \"a/b\", allowed is 1 to 64 letters, digits, '-', '_' or '.'"],
    ),
    Case(
        &[("CLUSTER_NAME", "")],
        &["CLUSTER_NAME is \"\", allowed is 1 to 64 letters, digits, '-', '_' or '.'"],
    ),
    Case(
        &[("CONSUL_KV_PREFIX", "/tarsec")],
        &[
            "CONSUL_KV_PREFIX is \"/tarsec\", allowed is letters, digits, '-', '_' or '.', with single slashes between and none at either end",
        ],
    ),
    Case(
        &[("CONSUL_KV_PREFIX", "")],
        &[
            "CONSUL_KV_PREFIX is \"\", allowed is letters, digits, '-', '_' or '.', with single slashes between and none at either end",
        ],
    ),
    Case(
        &[("CONSUL_LOCK_KEY", "a//b")],
        &[
            "CONSUL_LOCK_KEY is \"a//b\", allowed is letters, digits, '-', '_' or '.', with single slashes between and none at either end",
        ],
    ),
    Case(
        &[("CONSUL_LOCK_SESSION_NAME", "a?b")],
        &[
            "CONSUL_LOCK_SESSION_NAME is \"a?b\", allowed is 1 to 64 letters, digits, '-', '_' or '.'",
        ],
    ),
    Case(
        &[("CONSUL_HTTP_SSL", "yes")],
        &["CONSUL_HTTP_SSL is \"yes\", allowed is true or false (or 1, t, 0, f)"],
    ),
    Case(
        &[("CONSUL_HTTP_SSL_VERIFY", "off")],
        &["CONSUL_HTTP_SSL_VERIFY is \"off\", allowed is true or false (or 1, t, 0, f)"],
    ),
    Case(
        &[("CONSUL_NAMESPACE", "a/b")],
        &["CONSUL_NAMESPACE is \"a/b\", allowed is 1 to 64 letters, digits, '-', '_' or '.'"],
    ),
    Case(
        &[("CONSUL_SERVICE_NAME", "a/b")],
        &[
            "CONSUL_SERVICE_NAME is \"a/b\", allowed is 1 to 64 letters, digits, '-', '_' or '.', {cluster} and {replicaset}",
        ],
    ),
    Case(
        &[("CONSUL_SERVICE_PREFIX", "a/b")],
        &[
            "CONSUL_SERVICE_PREFIX is \"a/b\", allowed is 1 to 64 letters, digits, '-', '_' or '.', {cluster} and {replicaset}",
        ],
    ),
    Case(
        &[("MASTER_TAGS", ",")],
        &["MASTER_TAGS is \",\", allowed is at least one tag, several separated by commas"],
    ),
    Case(
        &[("REPLICA_TAGS", ",")],
        &["REPLICA_TAGS is \",\", allowed is at least one tag, several separated by commas"],
    ),
    Case(
        &[("SLAVE_TAGS", ",")],
        &["SLAVE_TAGS is \",\", allowed is at least one tag, several separated by commas"],
    ),
    Case(
        &[("REPLICATION", "both")],
        &["REPLICATION is \"both\", allowed is keep or follow"],
    ),
    Case(
        &[("HUNG_INSTANCE_ACTION", "reboot")],
        &["HUNG_INSTANCE_ACTION is \"reboot\", allowed is kill or wait"],
    ),
    Case(
        &[("LOG_LEVEL", "loud")],
        &["LOG_LEVEL is \"loud\", allowed is trace, debug, info, warn or error"],
    ),
    Case(
        &[("LOG_FORMAT", "xml")],
        &["LOG_FORMAT is \"xml\", allowed is text or json"],
    ),
];

#[test]
fn names_numbers_and_choices_are_refused() {
    assert_refused(NAMES_NUMBERS_AND_CHOICES);
}

const WHAT_EXCLUDES_OR_NEEDS_EACH_OTHER: &[Case] = &[
    Case(
        &[("TARANTOOL_PASSWORD", "secret")],
        &["TARANTOOL_PASSWORD is set, allowed is that only together with TARANTOOL_USER"],
    ),
    Case(
        &[
            ("TARANTOOL_USER", "u"),
            ("TARANTOOL_PASSWORD", "secret"),
            ("TARANTOOL_PASSWORD_FILE", "/nowhere"),
        ],
        &["TARANTOOL_PASSWORD and TARANTOOL_PASSWORD_FILE are both set, allowed is one of them"],
    ),
    Case(
        &[
            ("CONSUL_HTTP_TOKEN", "a"),
            ("CONSUL_HTTP_TOKEN_FILE", "/nowhere"),
        ],
        &["CONSUL_HTTP_TOKEN and CONSUL_HTTP_TOKEN_FILE are both set, allowed is one of them"],
    ),
    Case(
        &[("CONSUL_CLIENT_CERT", "/c.pem")],
        &["CONSUL_CLIENT_CERT is set, allowed is that only together with CONSUL_CLIENT_KEY"],
    ),
    Case(
        &[("CONSUL_CLIENT_KEY", "/c.key")],
        &["CONSUL_CLIENT_KEY is set, allowed is that only together with CONSUL_CLIENT_CERT"],
    ),
    Case(
        &[
            ("CONSUL_SERVICE_NAME", "db"),
            ("CONSUL_SERVICE_PREFIX", "db"),
        ],
        &["CONSUL_SERVICE_NAME and CONSUL_SERVICE_PREFIX are both set, allowed is one of them"],
    ),
    Case(
        &[("REPLICA_TAGS", "a"), ("SLAVE_TAGS", "b")],
        &["REPLICA_TAGS and SLAVE_TAGS are both set, allowed is one of them"],
    ),
    Case(
        &[
            ("CONSUL_SERVICE_NAME", "db"),
            ("MASTER_TAGS", "a,b"),
            ("REPLICA_TAGS", "a,c"),
        ],
        &[
            "MASTER_TAGS and REPLICA_TAGS both begin with \"a\", allowed with CONSUL_SERVICE_NAME is a different first tag: it alone tells a master from a replica (resec demands the same)",
        ],
    ),
];

#[test]
fn what_excludes_or_needs_each_other_are_refused() {
    assert_refused(WHAT_EXCLUDES_OR_NEEDS_EACH_OTHER);
}

const TYPOS: &[Case] = &[
    Case(
        &[("MASTER_LEASES", "10s")],
        &["MASTER_LEASES is not a setting, the nearest one is MASTER_LEASE"],
    ),
    Case(
        &[("CONSUL_HTTP_ADRESS", "x")],
        &["CONSUL_HTTP_ADRESS is not a setting, the nearest one is CONSUL_HTTP_ADDR"],
    ),
    Case(
        &[("TARANTOOL_PASS", "x")],
        &["TARANTOOL_PASS is not a setting, the nearest one is TARANTOOL_PASSWORD"],
    ),
    Case(
        &[("PRIOIRTY", "1")],
        &["PRIOIRTY is not a setting, the nearest one is PRIORITY"],
    ),
];

#[test]
fn typos_are_refused() {
    assert_refused(TYPOS);
}

const VSHARD: &[Case] = &[
    Case(
        &[("ROLE", "master")],
        &["ROLE is \"master\", allowed is auto, storage or router"],
    ),
    Case(
        &[("VSHARD", "on")],
        &["VSHARD is \"on\", allowed is auto or off"],
    ),
    Case(
        &[("ROLE", "router"), ("VSHARD", "off")],
        &["VSHARD is \"off\", allowed is auto, where ROLE is router"],
    ),
    Case(
        &[("VSHARD_CONFIG_KEY", "shop/vshard"), ("VSHARD", "off")],
        &["VSHARD is \"off\", allowed is auto, where VSHARD_CONFIG_KEY is set"],
    ),
];

#[test]
fn settings_of_vshard_that_contradict_each_other_are_refused() {
    assert_refused(VSHARD);
}

#[test]
fn every_error_is_said_at_once() {
    assert_refused(&[Case(
        &[
            ("MASTER_LEASE", "1h"),
            ("PRIORITY", "x"),
            ("CONSUL_HTTP_ADR", "y"),
            ("GUARD", "iron"),
        ],
        &[
            "CONSUL_HTTP_ADR is not a setting, the nearest one is CONSUL_HTTP_ADDR",
            "GUARD is \"iron\", allowed is lease or strict",
            "PRIORITY is \"x\", allowed is a whole number",
            "MASTER_LEASE is 1h, allowed is 2s to 1m",
        ],
    )]);
}

#[test]
fn help_says_what_every_variable_and_exit_code_is_and_ends_well() {
    for argument in ["--help", "-h"] {
        let output = run(&[argument], &[("MASTER_LEASE", "nonsense")]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stderr), "");
        let help = text(&output.stdout);
        let names = settings().map(|setting| (setting.name, setting.doc));
        for (name, doc) in names {
            let entry = help.split(&format!("\n  {name}")).nth(1);
            let entry = entry.unwrap_or_else(|| panic!("{name} is not in:\n{help}"));
            let first_words: Vec<&str> = doc.split(' ').take(3).collect();
            let first_words = first_words.join(" ").replace('`', "");
            assert!(
                entry.contains(&first_words),
                "{name}: {first_words:?} is not in:\n{entry}"
            );
        }
        for exit in Exit::ALL {
            let first_words: Vec<&str> = exit.meaning().split(' ').take(3).collect();
            let line = format!("\n  {}  {}", exit.code(), first_words.join(" "));
            assert!(help.contains(&line), "{line:?} is not in:\n{help}");
        }
    }
}

#[test]
fn version_is_one_line() {
    for argument in ["--version", "-V"] {
        let output = run(&[argument], &[]);
        assert_eq!(output.status.code(), Some(0));
        let expected = format!("tarsec {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(text(&output.stdout), expected);
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn unknown_arguments_are_refused() {
    for argument in ["run", "--config", ""] {
        let output = run(&[argument], &[]);
        assert_eq!(output.status.code(), Some(2));
        let expected = format!(
            "tarsec: {argument} is not an argument, allowed are --help, --version and the commands status, switchover, \
             pause, resume, history, forget and completion; settings come from the environment\n"
        );
        assert_eq!(text(&output.stderr), expected);
        assert_eq!(text(&output.stdout), "");
    }
}
