//! Whatever a peer sends, decoding it neither panics nor grows without bound (libFuzzer limits memory).
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsec::tarantool::iproto::{Decoder, Greeting};

fuzz_target!(|input: &[u8]| {
    let Some((piece, stream)) = input.split_first() else {
        return;
    };
    drop(Greeting::parse(stream));
    let mut decoder = Decoder::default();
    for bytes in stream.chunks(usize::from(*piece).max(1)) {
        decoder.feed(bytes);
        loop {
            match decoder.next_reply() {
                Ok(Some(reply)) => {
                    if let Ok(value) = reply.outcome {
                        drop(value.decode::<serde_json::Value>());
                        // What the walk accepted can also be passed over.
                        assert!(value.decode::<serde::de::IgnoredAny>().is_ok());
                    }
                }
                Ok(None) => break,
                Err(_malformed) => return,
            }
        }
    }
});
