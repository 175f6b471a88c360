//! Whatever is in the keys beside the lock, reading it does not panic, and what was read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use tarsec::decide::board::{Ballot, HistoryLine, Member, Pause, Switchover, parse};
use tarsec::decide::record::Record;

fn reads<T: Serialize + DeserializeOwned>(input: &[u8]) {
    if let Some(read) = parse::<T>(input) {
        let written = serde_json::to_vec(&read).expect("what was read can be written");
        // Escapes may make it longer than what is allowed to be read.
        if written.len() <= Record::MAX_BYTES {
            let again = parse::<T>(&written).expect("what was written can be read");
            assert_eq!(serde_json::to_vec(&again).expect("and written"), written);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    reads::<Member>(input);
    reads::<Ballot>(input);
    reads::<Switchover>(input);
    reads::<HistoryLine>(input);
    drop(serde_json::from_slice::<Pause>(input));
});
