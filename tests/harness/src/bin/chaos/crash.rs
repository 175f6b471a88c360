//! Where a Tarantool that crashed was, by the backtrace that it leaves behind.

/// What stands above the crashed function: the handler's own frames, and the C library's between an assertion and its
/// signal.
const ABOVE: [&str; 7] = [
    "print_backtrace",
    "_ZL12sig_fatal_cbiP9siginfo_tPv",
    "__sigaction",
    "__restore_rt",
    "pthread_kill",
    "raise",
    "abort",
];

/// How many callers are named with the function.
const NAMED: usize = 3;

/// The function in which the last crash in a log happened, and its callers; `None` where the log names no function.
pub(crate) fn place(log: &str) -> Option<String> {
    let (_, backtrace) = log.rsplit_once("Attempting backtrace")?;
    let frames = backtrace.lines().filter_map(name);
    let below: Vec<_> = frames
        .skip_while(|name| ABOVE.contains(name))
        .take(NAMED)
        .collect();
    (!below.is_empty()).then(|| below.join(", called by "))
}

/// From a line like `#2  0x7f155d05a050 in tx_complete_batch+40`.
fn name(line: &str) -> Option<&str> {
    let frame = line.trim_start().strip_prefix('#')?;
    let (_, place) = frame.split_once(" in ")?;
    place.split('+').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What 2.6.0 on Debian 12 leaves behind.
    const SEGFAULT: &str = "\
    Segmentation fault
      code: SEGV_MAPERR
      rip      0x7f155d126f36     139729732529974
    Attempting backtrace... Note: since the server has already crashed, 
    this may fail as well
    #0  0x59aad9 in print_backtrace+9
    #1  0x446a37 in _ZL12sig_fatal_cbiP9siginfo_tPv+c7
    #2  0x7f155d05a050 in __sigaction+40
    #3  0x597d80 in fiber_wakeup+0
    #4  0x4571a4 in txn_limbo_ack+114
    #5  (nil) in +40
    ";

    #[test]
    fn the_function_below_the_signal_handler_is_named_with_its_callers() {
        let place = place(SEGFAULT);
        assert_eq!(
            place.as_deref(),
            Some("fiber_wakeup, called by txn_limbo_ack")
        );
    }

    #[test]
    fn of_two_crashes_in_a_log_the_last_one_counts() {
        let again = SEGFAULT.replace("fiber_wakeup", "tx_complete_batch");
        let log = format!("{SEGFAULT}\nentering the event loop\n{again}");
        assert!(place(&log).unwrap().starts_with("tx_complete_batch"));
    }

    #[test]
    fn a_crash_without_names_names_nothing() {
        let nameless = SEGFAULT
            .replace("fiber_wakeup+0", "")
            .replace("txn_limbo_ack+114", "");
        assert_eq!(place(&nameless), None);
        assert_eq!(place("entering the event loop"), None);
    }
}
