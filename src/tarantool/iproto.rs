//! Tarantool's binary protocol as a value: requests become bytes, bytes become replies. No sockets, no clock.
//!
//! Source of every protocol fact here: Tarantool's documentation, "Internals / Binary protocol", and for 2.6
//! `src/box/iproto_constants.h`. Spoken is what 2.6 to 3.x have in common; `IPROTO_ID` is never sent, 2.6 refuses it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmp::encode::{
    ValueWriteError, write_array_len, write_map_len, write_str, write_str_len, write_uint,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha1::{Digest as _, Sha1};

mod msgpack;
#[cfg(test)]
mod tests;

use msgpack::Reader;
pub use msgpack::{MAX_DEPTH, Malformed};

/// The greeting: two lines of 64 bytes each.
pub const GREETING_LEN: usize = 128;

/// The longest frame that is sent or accepted, in bytes.
///
/// Our own requests and replies are some kilobytes. A megabyte is the default limit of a tuple
/// (`memtx_max_tuple_size`), so this leaves room for whatever an operator's function returns while a wrong or hostile
/// peer cannot make the agent hold more than this per frame.
pub const MAX_FRAME_LEN: usize = 16 << 20;

/// How much of an error message is kept, in bytes. It ends in log lines.
pub const MAX_MESSAGE_LEN: usize = 4096;

/// How many bytes of an unknown peer's first words are shown.
pub const MAX_EXCERPT_LEN: usize = 48;

/// What a silent peer is sent to make it speak: a ping whose `sync` is two empty lines.
///
/// Servers that wait for the client to begin, like HTTP and Redis, see a line they do not understand and say so.
/// Tarantool, should it only have been slow, answers a ping for which nobody waits.
pub const NUDGE: [u8; 14] = *b"\x0d\x82\x01\xcf\r\n\r\n\r\n\r\n\x00\x40";

/// Error codes the agent tells apart (`src/box/errcode.h`).
pub mod code {
    /// `ER_NO_SUCH_PROC`: the called function does not exist.
    pub const NO_SUCH_PROC: u32 = 33;
    /// `ER_ACCESS_DENIED`: a grant is missing.
    pub const ACCESS_DENIED: u32 = 42;
    /// `ER_NO_SUCH_USER`. An instance that has not loaded its users yet says so, too.
    pub const NO_SUCH_USER: u32 = 45;
    /// `ER_PASSWORD_MISMATCH`. From 2.11 on (`ER_CREDS_MISMATCH`, the same number) also for an unknown user.
    pub const PASSWORD_MISMATCH: u32 = 47;
    /// `ER_LOADING`: the instance has not finished its bootstrap or recovery.
    pub const LOADING: u32 = 116;
}

const REQUEST_TYPE: u8 = 0x00;
const SYNC: u8 = 0x01;
const TUPLE: u8 = 0x21;
const FUNCTION_NAME: u8 = 0x22;
const USER_NAME: u8 = 0x23;
const EXPR: u8 = 0x27;
const DATA: u64 = 0x30;
const ERROR_24: u64 = 0x31;

const AUTH: u8 = 0x07;
const EVAL: u8 = 0x08;
const CALL: u8 = 0x0a;
const PING: u8 = 0x40;

const OK: u64 = 0x00;
/// A reply's type is this bit and an error code.
const TYPE_ERROR: u64 = 0x8000;

const NIL: u8 = 0xc0;
const EMPTY_ARRAY: u8 = 0x90;

/// A frame's length, written as a 32 bit integer so that it can be filled in afterwards.
const LENGTH_PREFIX: [u8; 5] = [0xce, 0, 0, 0, 0];

/// Bytes of the salt that take part in chap-sha1.
const SALT_LEN: usize = 20;

/// The answer to the greeting's salt.
pub type Scramble = [u8; SALT_LEN];

/// What an instance says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// For example `2.6.0` or `3.1.0-entrypoint`.
    pub version: String,
    salt: [u8; SALT_LEN],
}

/// The peer's first bytes are not a greeting; holds an [`excerpt`] of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {0}")]
pub struct NotGreeting(pub String);

impl Greeting {
    /// Reads a greeting; tells as soon as the bytes so far cannot become one. `None`: more bytes are needed.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, NotGreeting> {
        const OPENING: &[u8] = b"Tarantool ";
        let not_greeting = || NotGreeting(excerpt(bytes));
        let common = bytes.len().min(OPENING.len());
        if bytes[..common] != OPENING[..common] {
            return Err(not_greeting());
        }
        let Some((lines, _frames)) = bytes.split_at_checked(GREETING_LEN) else {
            return Ok(None);
        };
        let (first, second) = lines.split_at(GREETING_LEN / 2);
        let mut words = std::str::from_utf8(first)
            .map_err(|_| not_greeting())?
            .split_ascii_whitespace()
            .skip(1);
        let version = words.next().ok_or_else(not_greeting)?.to_owned();
        // The text console greets with the same first word, and with "(Lua console)".
        if words.next() != Some("(Binary)") {
            return Err(not_greeting());
        }
        let salt = BASE64
            .decode(second.trim_ascii_end())
            .map_err(|_| not_greeting())?;
        let salt = salt.first_chunk::<SALT_LEN>().ok_or_else(not_greeting)?;
        Ok(Some(Self {
            version,
            salt: *salt,
        }))
    }

    /// Proves knowledge of the password without sending it: chap-sha1.
    pub fn scramble(&self, password: &str) -> Scramble {
        let once = Sha1::digest(password.as_bytes());
        let twice = Sha1::digest(once);
        let mask = Sha1::new()
            .chain_update(self.salt)
            .chain_update(twice)
            .finalize();
        let mut scramble = [0; SALT_LEN];
        for (out, (a, b)) in scramble.iter_mut().zip(once.iter().zip(mask)) {
            *out = a ^ b;
        }
        scramble
    }
}

/// The first bytes in quotes, escaped and cut, fit for a log line.
pub fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_EXCERPT_LEN)];
    let cut = if shown.len() < bytes.len() { "…" } else { "" };
    format!("\"{}\"{cut}", shown.escape_ascii())
}

/// Why a request could not become bytes.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The arguments cannot be serialised.
    #[error("could not serialise the arguments")]
    Args(#[from] rmp_serde::encode::Error),
    /// The arguments are no sequence.
    #[error("the arguments are not an array")]
    NotAnArray,
    /// The frame would exceed [`MAX_FRAME_LEN`].
    #[error("a request of {len} bytes is over the limit of {MAX_FRAME_LEN}")]
    TooLarge {
        /// The frame's length, in bytes.
        len: usize,
    },
}

impl From<ValueWriteError> for EncodeError {
    fn from(error: ValueWriteError) -> Self {
        Self::Args(error.into())
    }
}

/// Arguments of a call or an eval: a MessagePack array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args(Vec<u8>);

impl Args {
    /// A tuple, a slice or a tuple struct gives an array; `()` gives an empty one. Structs inside become maps.
    pub fn encode<A: Serialize + ?Sized>(args: &A) -> Result<Self, EncodeError> {
        let mut bytes = Vec::new();
        args.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map())?;
        match bytes.first() {
            Some(&(EMPTY_ARRAY..=0x9f) | 0xdc | 0xdd) => Ok(Self(bytes)),
            Some(&NIL) => Ok(Self(vec![EMPTY_ARRAY])),
            Some(_) | None => Err(EncodeError::NotAnArray),
        }
    }
}

/// What can be asked of an instance.
#[derive(Debug)]
pub enum Request<'a> {
    /// `IPROTO_PING`.
    Ping,
    /// `IPROTO_AUTH`, chap-sha1.
    Auth {
        /// The user's name.
        user: &'a str,
        /// The proof from [`Greeting::scramble`].
        scramble: Scramble,
    },
    /// `IPROTO_CALL` (0x0a: the results are an array of what the function returned).
    Call {
        /// The function's name; dots and colons reach into tables.
        function: &'a str,
        /// Its arguments.
        args: Args,
    },
    /// `IPROTO_EVAL`.
    Eval {
        /// Lua source; it finds its arguments in `...`.
        expression: &'a str,
        /// Its arguments.
        args: Args,
    },
}

impl Request<'_> {
    /// The frame for this request. The reply carries the same `sync`.
    pub fn encode(&self, sync: u64) -> Result<Vec<u8>, EncodeError> {
        let mut frame = LENGTH_PREFIX.to_vec();
        write_map_len(&mut frame, 2)?;
        write_key(&mut frame, REQUEST_TYPE)?;
        write_key(&mut frame, self.request_type())?;
        write_key(&mut frame, SYNC)?;
        write_uint(&mut frame, sync)?;
        self.encode_body(&mut frame)?;
        let len = frame.len() - LENGTH_PREFIX.len();
        match u32::try_from(len) {
            Ok(prefix) if len <= MAX_FRAME_LEN => {
                frame[1..LENGTH_PREFIX.len()].copy_from_slice(&prefix.to_be_bytes())
            }
            Ok(_) | Err(_) => return Err(EncodeError::TooLarge { len }),
        }
        Ok(frame)
    }

    fn request_type(&self) -> u8 {
        match self {
            Self::Ping => PING,
            Self::Auth { .. } => AUTH,
            Self::Call { .. } => CALL,
            Self::Eval { .. } => EVAL,
        }
    }

    fn encode_body(&self, frame: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (name_key, name) = match self {
            Self::Ping => return Ok(write_map_len(frame, 0).map(|_| ())?),
            Self::Auth { user, .. } => (USER_NAME, user),
            Self::Call { function, .. } => (FUNCTION_NAME, function),
            Self::Eval { expression, .. } => (EXPR, expression),
        };
        write_map_len(frame, 2)?;
        write_key(frame, name_key)?;
        write_str(frame, name)?;
        write_key(frame, TUPLE)?;
        match self {
            Self::Ping => {}
            Self::Auth { scramble, .. } => {
                write_array_len(frame, 2)?;
                write_str(frame, "chap-sha1")?;
                // Tarantool's own clients send these raw bytes as a string.
                write_str_len(frame, SALT_LEN as u32)?;
                frame.extend_from_slice(scramble);
            }
            Self::Call { args, .. } | Self::Eval { args, .. } => frame.extend_from_slice(&args.0),
        }
        Ok(())
    }
}

fn write_key(frame: &mut Vec<u8>, key: u8) -> Result<(), ValueWriteError> {
    write_uint(frame, u64::from(key)).map(|_| ())
}

/// An error that the instance sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// See [`code`].
    pub code: u32,
    /// Tarantool's text, cut at [`MAX_MESSAGE_LEN`].
    pub message: String,
}

/// The first value that a call or an eval returned, still MessagePack, known to be well-formed.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstValue(Vec<u8>);

impl FirstValue {
    /// Nothing returned decodes as nil, so as `()` or an `Option`.
    ///
    /// Structs come from maps with string keys. Lua's empty table arrives as an empty array, even where a map is
    /// meant; the sender says which by `setmetatable({}, { __serialize = 'map' })`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, rmp_serde::decode::Error> {
        rmp_serde::from_slice(&self.0)
    }
}

impl fmt::Debug for FirstValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FirstValue({} bytes)", self.0.len())
    }
}

/// One frame from the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The `sync` of the request that it answers.
    pub sync: u64,
    /// What became of the request.
    pub outcome: Result<FirstValue, Refusal>,
}

/// Bytes in, replies out. After an error the stream has no frame boundaries left and must be closed.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// How much of `buffer` has been decoded.
    done: usize,
}

impl Decoder {
    /// An idle decoder gives back what a large frame took beyond this, in bytes.
    const IDLE_CAPACITY: usize = 64 << 10;

    /// Takes what was read. Drain [`next_reply`](Self::next_reply) before feeding more: that bounds the buffer.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.done);
        self.done = 0;
        if self.buffer.is_empty() {
            self.buffer.shrink_to(Self::IDLE_CAPACITY);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete reply, or `None` until more is fed. Frames that answer nothing (`box.session.push`, events)
    /// are passed over.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, Malformed> {
        while let Some(frame) = next_frame(&self.buffer[self.done..])? {
            let reply = decode_frame(frame.content)?;
            self.done += frame.len;
            if reply.is_some() {
                return Ok(reply);
            }
        }
        Ok(None)
    }
}

struct Frame<'a> {
    content: &'a [u8],
    /// The frame's length with its length prefix.
    len: usize,
}

fn next_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
    let mut reader = Reader::new(bytes);
    let announced = match reader.read_uint("a frame's length") {
        Ok(announced) => announced,
        // The length itself has not arrived whole. Only a few bytes can be so: a string is no length.
        Err(Malformed::Truncated) if matches!(bytes.first(), None | Some(0xcc..=0xcf)) => {
            return Ok(None);
        }
        Err(malformed) => return Err(malformed),
    };
    let prefix_len = bytes.len() - reader.remaining();
    match usize::try_from(announced) {
        Ok(len) if len <= MAX_FRAME_LEN => {
            let len = prefix_len + len;
            Ok(bytes
                .get(prefix_len..len)
                .map(|content| Frame { content, len }))
        }
        Ok(_) | Err(_) => Err(Malformed::FrameTooLarge { len: announced }),
    }
}

fn decode_frame(frame: &[u8]) -> Result<Option<Reply>, Malformed> {
    let mut reader = Reader::new(frame);
    let (mut reply_type, mut sync) = (OK, 0);
    for _ in 0..reader.read_map_len("a header")? {
        match reader.read_key()? {
            Some(key) if key == u64::from(REQUEST_TYPE) => {
                reply_type = reader.read_uint("a reply's type")?
            }
            Some(key) if key == u64::from(SYNC) => sync = reader.read_uint("a sync")?,
            Some(_) | None => drop(reader.skip_value()?),
        }
    }
    let body = if reader.is_empty() {
        Body::default()
    } else {
        decode_body(&mut reader)?
    };
    if !reader.is_empty() {
        return Err(Malformed::TrailingBytes);
    }
    let outcome = if reply_type == OK {
        Ok(FirstValue(body.first_value))
    } else if reply_type & TYPE_ERROR != 0 {
        // The error codes are 15 bits wide.
        Err(Refusal {
            code: (reply_type & (TYPE_ERROR - 1)) as u32,
            message: body.message,
        })
    } else {
        return Ok(None);
    };
    Ok(Some(Reply { sync, outcome }))
}

struct Body {
    first_value: Vec<u8>,
    message: String,
}

impl Default for Body {
    fn default() -> Self {
        Self {
            first_value: vec![NIL],
            message: String::new(),
        }
    }
}

fn decode_body(reader: &mut Reader<'_>) -> Result<Body, Malformed> {
    let mut body = Body::default();
    for _ in 0..reader.read_map_len("a body")? {
        match reader.read_key()? {
            Some(DATA) => {
                let values = reader.read_array_len("an array of results")?;
                for index in 0..values {
                    let value = reader.skip_value()?;
                    if index == 0 {
                        body.first_value = value.to_vec();
                    }
                }
            }
            Some(ERROR_24) => body.message = message(reader.read_str("an error's message")?),
            Some(_) | None => drop(reader.skip_value()?),
        }
    }
    Ok(body)
}

fn message(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_MESSAGE_LEN)]).into_owned()
}
