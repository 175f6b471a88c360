//! Whatever a process is called, reading its `/proc/<pid>/stat` does not panic, and its name is no state of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsec::process::reads_as_exiting;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let _ = reads_as_exiting(&text);
    assert!(!reads_as_exiting(&format!("42 ({text}) S 1 42 42 0 -1 4194304 0 0 0")));
    assert!(reads_as_exiting(&format!("42 ({text}) Z 1 42 42 0 -1 4194304 0 0 0")));
});
