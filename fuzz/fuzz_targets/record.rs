//! Whatever is in the lock key, reading it does not panic, and what was read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsec::decide::record::Record;
use tarsec::decide::term::Term;

fuzz_target!(|input: &[u8]| {
    if let Ok(record) = Record::parse(input) {
        assert!(record.term > Term::NONE);
        assert!(record.lease_ms <= Record::MAX_LEASE_MS);
        // Escapes may make it longer than what is allowed to be read.
        let bytes = record.to_bytes();
        assert!(bytes.len() > Record::MAX_BYTES || Record::parse(&bytes) == Ok(record));
    }
});
