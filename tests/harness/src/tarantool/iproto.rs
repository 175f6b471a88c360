//! The harness's own small iproto client, written apart from the product's on purpose.

use std::time::Duration;

use base64::Engine;
use serde_json::Value;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::msgpack;
use crate::error::{Error, Result};

const GREETING_SIZE: usize = 128;
/// Replies are small here; a longer one means that we lost our place in the stream.
const MAX_FRAME: u64 = 64 << 20;

const CODE: u8 = 0x00;
const SYNC: u8 = 0x01;
const TUPLE: u8 = 0x21;
const FUNCTION: u8 = 0x22;
const USER: u8 = 0x23;
const EXPRESSION: u8 = 0x27;
const SPACE: u8 = 0x10;

/// The user as whom a client talks to an instance.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// Runs Lua; `...` holds the arguments.
    Eval(&'a str, &'a [Value]),
    /// Calls a global function.
    Call(&'a str, &'a [Value]),
    /// Inserts a tuple into the space with this number.
    Insert(u32, &'a [Value]),
    /// Inserts or replaces a tuple in the space with this number.
    Replace(u32, &'a [Value]),
    /// Asks for a sign of life.
    Ping,
}

/// One answer: the values returned, or [`Error::Refused`].
#[derive(Debug)]
pub struct Reply {
    /// The number of the request it answers.
    pub sync: u64,
    /// The values, or the refusal.
    pub outcome: Result<Vec<Value>>,
}

/// An authenticated connection.
#[derive(Debug)]
pub struct Connection {
    /// Where requests go in; they may be pipelined.
    pub requests: Requests,
    /// Where the answers come out.
    pub replies: Replies,
}

/// The writing half.
#[derive(Debug)]
pub struct Requests {
    socket: OwnedWriteHalf,
    last_sync: u64,
    buffer: Vec<u8>,
}

/// The reading half.
#[derive(Debug)]
pub struct Replies {
    socket: OwnedReadHalf,
    buffer: Vec<u8>,
    consumed: usize,
}

impl Connection {
    /// Connects and logs in, all within `deadline`.
    ///
    /// # Errors
    /// When the address refuses, the instance does not answer in time, or the login is wrong.
    pub async fn open(addr: &str, login: &Login, deadline: Duration) -> Result<Self> {
        let late = || Error::Timeout {
            what: format!("a session at {addr}"),
            waited: deadline,
            last: "no answer".to_owned(),
        };
        timeout(deadline, Self::open_unbounded(addr, login))
            .await
            .map_err(|_| late())?
    }

    async fn open_unbounded(addr: &str, login: &Login) -> Result<Self> {
        let connect = TcpStream::connect(addr).await;
        let socket = connect.map_err(Error::io(format!("connect to {addr}")))?;
        socket
            .set_nodelay(true)
            .map_err(Error::io("turn off Nagle's algorithm"))?;
        let (mut read, write) = socket.into_split();
        let mut greeting = [0; GREETING_SIZE];
        let got = read.read_exact(&mut greeting).await;
        got.map_err(Error::io(format!("read the greeting of {addr}")))?;
        let mut connection = Self {
            requests: Requests {
                socket: write,
                last_sync: 0,
                buffer: Vec::new(),
            },
            replies: Replies {
                socket: read,
                buffer: Vec::new(),
                consumed: 0,
            },
        };
        let scramble = scramble(&greeting, &login.password)?;
        connection.requests.queue_auth(&login.user, &scramble);
        connection.requests.flush().await?;
        connection.replies.next().await?.outcome?;
        Ok(connection)
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Refused`] when Tarantool says no, [`Error::Timeout`], or an I/O error.
    pub async fn request(
        &mut self,
        request: Request<'_>,
        deadline: Duration,
    ) -> Result<Vec<Value>> {
        let exchange = async {
            let sync = self.requests.queue(request);
            self.requests.flush().await?;
            loop {
                let reply = self.replies.next().await?;
                if reply.sync == sync {
                    return reply.outcome;
                }
            }
        };
        let late = || Error::Timeout {
            what: format!("an answer to {request:?}"),
            waited: deadline,
            last: "none".to_owned(),
        };
        timeout(deadline, exchange).await.map_err(|_| late())?
    }

    /// Runs Lua and returns what it returns.
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub async fn eval(
        &mut self,
        lua: &str,
        args: &[Value],
        deadline: Duration,
    ) -> Result<Vec<Value>> {
        self.request(Request::Eval(lua, args), deadline).await
    }
}

impl Requests {
    /// Adds a request to the buffer and returns its number.
    pub fn queue(&mut self, request: Request<'_>) -> u64 {
        self.last_sync += 1;
        let sync = self.last_sync;
        self.frame(code_of(request), sync, |out| match request {
            Request::Eval(lua, args) => string_and_tuple(out, EXPRESSION, lua, args),
            Request::Call(function, args) => string_and_tuple(out, FUNCTION, function, args),
            Request::Insert(space, tuple) | Request::Replace(space, tuple) => {
                out.extend([0x82, SPACE]);
                msgpack::encode_uint(out, u64::from(space));
                encode_tuple(out, tuple);
            }
            Request::Ping => out.push(0x80),
        });
        sync
    }

    /// Sends what was queued.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn flush(&mut self) -> Result<()> {
        let sent = self.socket.write_all(&self.buffer).await;
        self.buffer.clear();
        sent.map_err(Error::io("send to tarantool"))
    }

    /// Whether [`Requests::send_some`] has something to send.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Sends as much of what was queued as the socket takes at once. Safe to cancel.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send_some(&mut self) -> Result<()> {
        let sent = self.socket.write(&self.buffer).await;
        self.buffer
            .drain(..sent.map_err(Error::io("send to tarantool"))?);
        Ok(())
    }

    fn queue_auth(&mut self, user: &str, scramble: &[u8; 20]) {
        self.frame(7, 0, |out| {
            out.extend([0x82, USER]);
            msgpack::encode_str(out, user);
            out.extend([TUPLE, 0x92]);
            msgpack::encode_str(out, "chap-sha1");
            // A string of 20 bytes that are no text.
            out.push(0xb4);
            out.extend(scramble);
        });
    }

    fn frame(&mut self, code: u8, sync: u64, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.buffer.len();
        self.buffer
            .extend([0xce, 0, 0, 0, 0, 0x82, CODE, code, SYNC]);
        msgpack::encode_uint(&mut self.buffer, sync);
        body(&mut self.buffer);
        let size = (self.buffer.len() - start - 5) as u32;
        self.buffer[start + 1..start + 5].copy_from_slice(&size.to_be_bytes());
    }
}

impl Replies {
    /// The next answer, in whatever order the instance gives them. Safe to cancel.
    ///
    /// # Errors
    /// When the connection ends or the stream makes no sense. A refusal is not an error here.
    pub async fn next(&mut self) -> Result<Reply> {
        loop {
            if let Some(reply) = self.take_buffered()? {
                return Ok(reply);
            }
            self.buffer.drain(..std::mem::take(&mut self.consumed));
            let read = self.socket.read_buf(&mut self.buffer).await;
            if read.map_err(Error::io("read from tarantool"))? == 0 {
                let end = std::io::ErrorKind::UnexpectedEof.into();
                return Err(Error::Io {
                    action: "read from tarantool".to_owned(),
                    source: end,
                });
            }
        }
    }

    fn take_buffered(&mut self) -> Result<Option<Reply>> {
        let mut rest = &self.buffer[self.consumed..];
        // The size itself may not have arrived in full yet.
        let Ok(size) = msgpack::decode(&mut rest) else {
            return Ok(None);
        };
        let size = size.as_u64().filter(|size| *size <= MAX_FRAME);
        let size = size.ok_or_else(|| Error::malformed("the size of a reply"))? as usize;
        let Some(mut frame) = rest.get(..size) else {
            return Ok(None);
        };
        self.consumed = self.buffer.len() - rest.len() + size;
        parse_reply(&mut frame).map(Some)
    }
}

fn parse_reply(frame: &mut &[u8]) -> Result<Reply> {
    let header = msgpack::decode(frame)?;
    let body = if frame.is_empty() {
        Value::Null
    } else {
        msgpack::decode(frame)?
    };
    let number = |key: &str| header.get(key).and_then(Value::as_u64);
    let status = number("0").ok_or_else(|| Error::malformed("a reply without a status"))?;
    let sync = number("1").unwrap_or(0);
    let outcome = if status == 0 {
        match body.get("48") {
            Some(Value::Array(values)) => Ok(values.clone()),
            _ => Ok(Vec::new()),
        }
    } else {
        let message = body
            .get("49")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Err(Error::Refused {
            code: (status & 0x7fff) as u32,
            message,
        })
    };
    Ok(Reply { sync, outcome })
}

fn code_of(request: Request<'_>) -> u8 {
    match request {
        Request::Insert(..) => 2,
        Request::Replace(..) => 3,
        Request::Eval(..) => 8,
        Request::Call(..) => 10,
        Request::Ping => 64,
    }
}

fn string_and_tuple(out: &mut Vec<u8>, key: u8, text: &str, tuple: &[Value]) {
    out.extend([0x82, key]);
    msgpack::encode_str(out, text);
    encode_tuple(out, tuple);
}

fn encode_tuple(out: &mut Vec<u8>, tuple: &[Value]) {
    out.extend([TUPLE, 0xdd]);
    out.extend((tuple.len() as u32).to_be_bytes());
    tuple.iter().for_each(|item| msgpack::encode(out, item));
}

/// chap-sha1, <https://www.tarantool.io/en/doc/latest/reference/internals/box_protocol/>: the salt
/// is the first 20 bytes of the greeting's second line, decoded.
fn scramble(greeting: &[u8; GREETING_SIZE], password: &str) -> Result<[u8; 20]> {
    let salt = base64::engine::general_purpose::STANDARD
        .decode(&greeting[64..108])
        .map_err(|error| Error::malformed(format!("a greeting's salt ({error})")))?;
    let salt = salt
        .get(..20)
        .ok_or_else(|| Error::malformed("a greeting with a short salt"))?;
    let once: [u8; 20] = Sha1::digest(password.as_bytes()).into();
    let twice = Sha1::digest(once);
    let mut mask: [u8; 20] = Sha1::new()
        .chain_update(salt)
        .chain_update(twice)
        .finalize()
        .into();
    mask.iter_mut()
        .zip(once)
        .for_each(|(mask, byte)| *mask ^= byte);
    Ok(mask)
}
