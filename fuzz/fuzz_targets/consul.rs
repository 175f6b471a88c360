//! Whatever Consul answers, with whichever status and index, reading it does not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsec::consul::read_any_answer;

fuzz_target!(|input: (u8, Option<u64>, &[u8])| {
    let (which, index, body) = input;
    let codes = [200, 404, 409, 500, 403, 429];
    read_any_answer(codes[usize::from(which) % codes.len()], index, body);
});
