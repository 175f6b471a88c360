use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

const GREETING: &[u8; GREETING_LEN] =
    b"Tarantool 2.6.0 (Binary) 120ec2a5-81a2-42bd-b4f7-0410ea1d6943  \n\
BKTa5L0WKBZ22Xol/7cqxwmdzmNVgAS0jo1g5tAG3pI=                   \n";

// What Tarantool 2.6.0 sent, with a schema version (0x05) in each header.
/// `return 42, {a = 1}`
const VALUES: &str =
    "ce000000238300ce0000000001cf000000000000000105ce0000004e8130dd000000022a81a16101";
/// `error('boom')`, with 0x31 and 0x52.
const ERROR: &str = "ce000000618300ce0000802001cf000000000000000205ce0000004e8231ac6576616c3a313a20626f6f6d\
528100918600ab4c75616a69744572726f7202cd03ed01b12e2f7372632f6c75612f7574696c732e6303ac6576616c3a313a20626f6f6d04000520";
/// A pushed 7 (type 0x80), then the uuid that was returned.
const PUSH_THEN_EXT: &str = "ce0000001f8300ce0000008001cf000000000000000305ce0000004e8130dd0000000107\
ce000000308300ce0000000001cf000000000000000305ce0000004e8130dd00000001d80200112233445566778899aabbccddeeff";
/// `return {u = uuid, a = 1, d = decimal}`
const EXT_IN_MAP: &str = "ce0000003e8300ce0000000001cf000000000000000405ce0000004e\
8130dd0000000183a164c7030101015ca16101a175d80200112233445566778899aabbccddeeff";

/// Spaces in `hex` are for the reader.
fn bytes(hex: &str) -> Vec<u8> {
    let hex = hex.replace(' ', "");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn decode_all(stream: &[u8]) -> Result<Vec<Reply>, Malformed> {
    let mut decoder = Decoder::default();
    decoder.feed(stream);
    std::iter::from_fn(|| decoder.next_reply().transpose()).collect()
}

fn only_reply(hex: &str) -> Reply {
    let mut replies = decode_all(&bytes(hex)).unwrap();
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

/// A frame around header and body.
fn frame(content: &[u8]) -> Vec<u8> {
    [&[0xce], &(content.len() as u32).to_be_bytes()[..], content].concat()
}

#[test]
fn reads_a_greeting_once_it_is_whole() {
    assert_eq!(Greeting::parse(&GREETING[..127]).unwrap(), None);
    assert_eq!(Greeting::parse(GREETING).unwrap().unwrap().version, "2.6.0");
}

#[test]
fn scrambles_like_tarantool() {
    let greeting = Greeting::parse(GREETING).unwrap().unwrap();
    assert_eq!(
        greeting.scramble("secret")[..],
        bytes("5f7e5e4c616dcf89fc349e71966399d6d4025926")
    );
}

#[test]
fn shows_what_is_no_greeting() {
    let found = |bytes: &[u8]| Greeting::parse(bytes).unwrap_err().0;
    assert_eq!(
        found(b"HTTP/1.1 400 Bad Request\r\n"),
        r#""HTTP/1.1 400 Bad Request\r\n""#
    );
    assert_eq!(found(b"-ERR unknown"), r#""-ERR unknown""#);
    assert_eq!(found(&[0x1b; 200]).chars().count(), MAX_EXCERPT_LEN * 4 + 3);
    let console = format!(
        "{:63}\n{:63}\n",
        "Tarantool 2.6.0 (Lua console)", "type 'help' for interactive help"
    );
    assert!(found(console.as_bytes()).starts_with(r#""Tarantool 2.6.0 (Lua console)"#));
    let bad_salt = [&GREETING[..64], &[b'!'; 64]].concat();
    assert!(Greeting::parse(&bad_salt).is_err());
}

#[test]
fn encodes_requests_as_documented() {
    let args = Args::encode(&(1, "x")).unwrap();
    let call = Request::Call {
        function: "f",
        args: args.clone(),
    };
    let eval = Request::Eval {
        expression: "f",
        args,
    };
    let auth = Request::Auth {
        user: "u",
        scramble: [0xff; 20],
    };
    assert_eq!(
        Request::Ping.encode(1).unwrap(),
        bytes("ce0000000682004001 0180")
    );
    assert_eq!(
        call.encode(2).unwrap(),
        bytes("ce0000000e82000a0102 8222a16621 9201a178")
    );
    assert_eq!(
        eval.encode(300).unwrap()[5..],
        bytes("82000801cd012c8227a166219201a178")
    );
    let scramble = format!("b4{}", "ff".repeat(20));
    assert_eq!(
        auth.encode(3).unwrap()[5..],
        bytes(&format!(
            "82000701038223a1752192a9636861702d73686131{scramble}"
        ))
    );
}

#[test]
fn arguments_are_an_array_and_structs_inside_are_maps() {
    #[derive(Serialize)]
    struct Options {
        a: u8,
    }
    assert_eq!(Args::encode(&()).unwrap().0, [0x90]);
    assert_eq!(
        Args::encode(&(Options { a: 1 },)).unwrap().0,
        bytes("9181a16101")
    );
    assert!(matches!(
        Args::encode(&Options { a: 1 }),
        Err(EncodeError::NotAnArray)
    ));
    assert!(matches!(Args::encode("text"), Err(EncodeError::NotAnArray)));
}

#[test]
fn refuses_to_send_a_frame_over_the_limit() {
    let args = Args::encode(&("x".repeat(MAX_FRAME_LEN),)).unwrap();
    let request = Request::Call {
        function: "f",
        args,
    };
    assert!(matches!(
        request.encode(1),
        Err(EncodeError::TooLarge { .. })
    ));
}

#[test]
fn decodes_the_first_of_several_values() {
    let reply = only_reply(VALUES);
    assert_eq!(reply.sync, 1);
    assert_eq!(reply.outcome.unwrap().decode::<u32>().unwrap(), 42);
}

#[test]
fn decodes_an_error_and_ignores_its_extended_form() {
    let refusal = Refusal {
        code: 32,
        message: "eval:1: boom".to_owned(),
    };
    assert_eq!(
        only_reply(ERROR),
        Reply {
            sync: 2,
            outcome: Err(refusal)
        }
    );
}

#[test]
fn passes_over_pushed_messages_and_extension_values() {
    #[derive(Deserialize)]
    struct A {
        a: u8,
    }
    let uuid = only_reply(PUSH_THEN_EXT).outcome.unwrap();
    assert!(uuid.decode::<String>().is_err());
    assert_eq!(
        only_reply(EXT_IN_MAP)
            .outcome
            .unwrap()
            .decode::<A>()
            .unwrap()
            .a,
        1
    );
}

#[test]
fn no_value_and_no_body_decode_as_nil() {
    for content in ["8200000105", "8200000105 80", "8200000105 813090"] {
        let reply = decode_all(&frame(&bytes(content))).unwrap().remove(0);
        assert_eq!(reply.outcome.unwrap().decode::<Option<u8>>().unwrap(), None);
    }
}

#[test]
fn passes_over_unknown_keys() {
    let content = bytes("84000001077f81a16b9101a378797a c3 81 3090");
    assert_eq!(decode_all(&frame(&content)).unwrap()[0].sync, 7);
}

#[test]
fn refuses_hostile_frames() {
    let refused = |content: &[u8]| decode_all(&frame(content)).unwrap_err();
    assert_eq!(
        decode_all(&[0xce, 0xff, 0xff, 0xff, 0xff]),
        Err(Malformed::FrameTooLarge { len: 0xffff_ffff })
    );
    assert_eq!(decode_all(&[0x93]), Err(Malformed::Truncated));
    assert_eq!(
        decode_all(&[0xa1]),
        Err(Malformed::Unexpected {
            wanted: "a frame's length"
        })
    );
    assert_eq!(refused(&bytes("80 8130ddffffffff")), Malformed::Truncated);
    assert_eq!(refused(&bytes("80dfffffffff")), Malformed::Truncated);
    assert_eq!(refused(&bytes("808030")), Malformed::TrailingBytes);
    assert_eq!(refused(&bytes("81c1")), Malformed::Truncated);
    assert_eq!(refused(&bytes("81c100")), Malformed::Reserved);
    let nested = |depth: usize| [&bytes("80813091")[..], &vec![0x91; depth], &[0xc0]].concat();
    assert!(decode_all(&frame(&nested(MAX_DEPTH))).is_ok());
    assert_eq!(refused(&nested(MAX_DEPTH + 1)), Malformed::TooDeep);
    assert_eq!(refused(&nested(1 << 20)), Malformed::TooDeep);
}

#[test]
fn cuts_a_long_error_message() {
    let content = [&bytes("8100cd800181 31da ffff")[..], &[b'm'; 0xffff]].concat();
    let refusal = decode_all(&frame(&content))
        .unwrap()
        .remove(0)
        .outcome
        .unwrap_err();
    assert_eq!((refusal.code, refusal.message.len()), (1, MAX_MESSAGE_LEN));
}

/// Decodes the stream in pieces, and every value in it as whatever it is.
fn decode_in_pieces(stream: &[u8], piece: usize) -> Result<usize, Malformed> {
    let mut decoder = Decoder::default();
    let mut replies = 0;
    for bytes in stream.chunks(piece) {
        decoder.feed(bytes);
        assert!(decoder.buffer.capacity() <= 2 * stream.len() + 64);
        while let Some(reply) = decoder.next_reply()? {
            replies += 1;
            if let Ok(value) = reply.outcome {
                assert!(value.0.len() <= stream.len().max(1));
                drop(value.decode::<serde_json::Value>());
                drop(value.decode::<BTreeMap<String, Option<Vec<u64>>>>());
                value.decode::<serde::de::IgnoredAny>().unwrap();
            }
        }
    }
    Ok(replies)
}

#[test]
fn frames_may_arrive_in_any_pieces() {
    let stream = bytes(&[VALUES, ERROR, PUSH_THEN_EXT, EXT_IN_MAP].concat());
    for piece in 1..=stream.len() {
        assert_eq!(decode_in_pieces(&stream, piece), Ok(4));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(stream in prop::collection::vec(any::<u8>(), 0..600), piece in 1..64_usize) {
        drop(decode_in_pieces(&stream, piece));
        drop(decode_in_pieces(&frame(&stream), piece));
        drop(decode_in_pieces(&frame(&[&[0x80, 0x81, 0x30, 0x91][..], &stream].concat()), piece));
        drop(Greeting::parse(&stream));
        drop(Greeting::parse(&[&GREETING[..64], &stream].concat()));
    }

    #[test]
    fn mutated_frames_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        piece in 1..64_usize,
    ) {
        let mut stream = bytes(&[VALUES, ERROR, PUSH_THEN_EXT, EXT_IN_MAP].concat());
        for (at, byte) in edits {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream.truncate(cut.index(stream.len()) + 1);
        drop(decode_in_pieces(&stream, piece));
    }
}
