//! Whatever an instance answers to a word for its guard, in a frame that is sound, reading it does not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsec::tarantool::iproto::Decoder;
use tarsec::tarantool::read_any_reply;

/// A reply's header (no error, no number) and a body whose data is one value.
const BEFORE: [u8; 4] = [0x80, 0x81, 0x30, 0x91];

fuzz_target!(|input: &[u8]| {
    let length = u32::try_from(BEFORE.len() + input.len()).expect("libFuzzer's inputs are short");
    let mut frame = vec![0xce];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&BEFORE);
    frame.extend_from_slice(input);
    let mut decoder = Decoder::default();
    decoder.feed(&frame);
    if let Ok(Some(reply)) = decoder.next_reply()
        && let Ok(value) = reply.outcome
    {
        read_any_reply(&value);
    }
});
