//! A connection to the instance: requests are multiplexed over one socket, TCP or unix.
//!
//! ```text
//!  request -> waiting[sync] -> queue -> task: write ─┐
//!  caller  <- waiting[sync] <---------- task: read  <┴─ socket
//! ```
//!
//! One task owns the socket. It ends with the socket or with the last handle, whichever is first; when the socket ends,
//! every waiting request fails at once and [`Connection::closed`] resolves.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep, timeout};

use crate::config::{TarantoolAddr, TarantoolConfig};
use crate::plain;
use crate::process::FarEnd;
use crate::tarantool::iproto::{
    Args, Decoder, EncodeError, FirstValue, GREETING_LEN, Greeting, NUDGE, Refusal, Reply, Request,
    code, excerpt,
};

mod error;
mod socket;
#[cfg(test)]
mod tests;

pub use error::{Ended, OpenError, RequestError, Step};
use socket::Socket;

/// Requests in flight at a time; more wait for their turn within their own deadlines.
///
/// Of an instance's agent at most one command in each of four places is under way (the guard's, a fence, replication, vshard),
/// beside a ping and the last word before a kill; the rest is room for those who ask while it attaches. A hung instance must not
/// make the agent hold more.
pub const MAX_IN_FLIGHT: usize = 64;

/// How much is read at a time, in bytes: a probe's reply at once.
const READ_LEN: usize = 16 << 10;

/// A handle to an open connection; clones share it. The socket closes with the last one.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<Handle>,
}

struct Handle {
    peer: String,
    far_end: io::Result<FarEnd>,
    version: String,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Queued>,
    in_flight: Semaphore,
    task: JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The task may be in the middle of a write that a hung instance never takes.
        self.task.abort();
    }
}

struct Queued {
    sync: u64,
    frame: Vec<u8>,
}

/// What the task and the requests both see.
struct Shared {
    waiting: Mutex<Waiting>,
    /// Set once, after `Waiting::ended`.
    ended: watch::Sender<Option<Ended>>,
}

#[derive(Default)]
struct Waiting {
    last_sync: u64,
    requests: HashMap<u64, oneshot::Sender<Answer>>,
    /// Under the same lock as `requests`, so that no request can slip in after the end and wait in vain.
    ended: Option<Ended>,
}

type Answer = Result<FirstValue, Unanswered>;

/// Why a request has no value, before it is told which request that was.
enum Unanswered {
    Refused(Refusal),
    Closed(Ended),
    Encode(EncodeError),
}

impl Connection {
    /// Resolves, connects, awaits the greeting and authenticates (chap-sha1; guest does not), all within `deadline`. A
    /// password that is refused is read again, for the next time.
    ///
    /// A host's addresses are tried one after another, so an address that swallows packets takes the time of those
    /// behind it. A silent peer is a [`OpenError::Timeout`] at [`Step::Greeting`], not `NotTarantool`: a Tarantool that
    /// was stopped looks the same. Half-way the peer is nudged, because some servers wait for their client to speak.
    pub async fn open(config: &TarantoolConfig, deadline: Duration) -> Result<Self, OpenError> {
        let mut limit = Limit {
            sleep: pin!(sleep(deadline)),
            after: deadline,
        };
        let mut socket = match &config.addr {
            TarantoolAddr::Tcp(host_and_port) => {
                let addresses = limit
                    .apply(Step::Resolve, tokio::net::lookup_host(host_and_port))
                    .await?
                    .map_err(OpenError::Unreachable)?
                    .collect();
                limit
                    .apply(Step::Connect, socket::connect_tcp(addresses))
                    .await??
            }
            TarantoolAddr::Unix(path) => {
                limit
                    .apply(Step::Connect, socket::connect_unix(path))
                    .await??
            }
        };
        let mut received = Vec::new();
        let greeting = limit
            .apply(
                Step::Greeting,
                greet(&mut socket, &mut received, deadline / 2),
            )
            .await;
        let greeting = match greeting {
            // Some bytes and then none: whatever server that is, Tarantool sends its greeting whole.
            Err(_) if !received.is_empty() => {
                return Err(OpenError::NotTarantool {
                    found: excerpt(&received),
                });
            }
            Ok(greeting) => greeting?,
            Err(timeout) => return Err(timeout),
        };
        let connection = Self::start(socket, &greeting, &received[GREETING_LEN..]);
        if let Some(user) = &config.user {
            let scramble = greeting.scramble(&config.password.get());
            let request = Request::Auth { user, scramble };
            limit
                .apply(Step::Auth, connection.exchange(&request))
                .await?
                .map_err(|unanswered| match unanswered {
                    Unanswered::Refused(Refusal { code, message }) => {
                        if matches!(code, code::PASSWORD_MISMATCH | code::NO_SUCH_USER) {
                            config.password.refused();
                        }
                        OpenError::Auth {
                            user: user.clone(),
                            code,
                            message: plain::line(&message),
                        }
                    }
                    Unanswered::Closed(ended) => OpenError::Closed(ended),
                    Unanswered::Encode(error) => OpenError::Unreachable(std::io::Error::new(
                        std::io::ErrorKind::InvalidInput,
                        error,
                    )),
                })?;
        }
        Ok(connection)
    }

    fn start(socket: Socket, greeting: &Greeting, received: &[u8]) -> Self {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            ended: watch::Sender::new(None),
        });
        let (queue, queued) = mpsc::channel(MAX_IN_FLIGHT);
        let mut decoder = Decoder::default();
        decoder.feed(received);
        let task = tokio::spawn(run(
            Arc::clone(&shared),
            socket.reader,
            decoder,
            socket.writer,
            queued,
        ));
        let handle = Handle {
            peer: socket.peer,
            far_end: socket.far_end,
            version: greeting.version.clone(),
            shared,
            queue,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            task,
        };
        Self {
            handle: Arc::new(handle),
        }
    }

    /// The address that was connected to, for log lines: `127.0.0.1:3301` or a socket's path.
    pub fn peer(&self) -> &str {
        &self.handle.peer
    }

    /// The other end, as the kernel has it.
    ///
    /// # Errors
    /// The kernel did not say.
    pub fn far_end(&self) -> Result<FarEnd, &io::Error> {
        self.handle.far_end.as_ref().copied()
    }

    /// Tarantool's version as its greeting tells it, like `2.6.0`.
    pub fn version(&self) -> &str {
        &self.handle.version
    }

    /// Asks the instance's network thread and its transaction thread for a sign of life.
    pub async fn ping(&self, deadline: Duration) -> Result<(), RequestError> {
        self.request(&Request::Ping, "ping", deadline)
            .await
            .map(|_empty| ())
    }

    /// Calls a function. `args` is a tuple, a slice or `()`; structs in it become maps. The first returned value
    /// becomes `T`, see [`FirstValue::decode`].
    pub async fn call<A, T>(
        &self,
        function: &str,
        args: &A,
        deadline: Duration,
    ) -> Result<T, RequestError>
    where
        A: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        let what = format!("call {function}");
        let args = encode_args(args, &what)?;
        let value = self
            .request(&Request::Call { function, args }, &what, deadline)
            .await?;
        value
            .decode()
            .map_err(|source| RequestError::Decode { what, source })
    }

    /// Evaluates a Lua expression, which finds `args` in `...`. Otherwise like [`call`](Self::call).
    pub async fn eval<A, T>(
        &self,
        expression: &str,
        args: &A,
        deadline: Duration,
    ) -> Result<T, RequestError>
    where
        A: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        let what = "evaluate an expression";
        let args = encode_args(args, what)?;
        let value = self
            .request(&Request::Eval { expression, args }, what, deadline)
            .await?;
        value.decode().map_err(|source| RequestError::Decode {
            what: what.to_owned(),
            source,
        })
    }

    /// Resolves when the connection has ended, with how; at once if it has ended before.
    pub async fn closed(&self) -> Ended {
        let mut ended = self.handle.shared.ended.subscribe();
        let ended = ended
            .wait_for(Option::is_some)
            .await
            .map(|ended| ended.clone());
        // The sender lives as long as `self`, so there is always an answer.
        ended.ok().flatten().unwrap_or(Ended::Eof)
    }

    async fn request(
        &self,
        request: &Request<'_>,
        what: &str,
        deadline: Duration,
    ) -> Result<FirstValue, RequestError> {
        let Ok(answer) = timeout(deadline, self.exchange(request)).await else {
            return Err(RequestError::Timeout {
                what: what.to_owned(),
                after: deadline,
            });
        };
        answer.map_err(|unanswered| match unanswered {
            Unanswered::Refused(Refusal { code, message }) => RequestError::Tarantool {
                code,
                message: plain::line(&message),
            },
            Unanswered::Closed(ended) => RequestError::Closed(ended),
            Unanswered::Encode(source) => encode_error(source, what),
        })
    }

    /// Without a deadline of its own. May be dropped at any point: the task writes whole frames, and a reply that
    /// nobody awaits any more is discarded.
    async fn exchange(&self, request: &Request<'_>) -> Answer {
        let handle = &*self.handle;
        // Nobody closes the semaphore; the queue closes with the socket.
        let Ok(_permit) = handle.in_flight.acquire().await else {
            return Err(self.closed().await.into());
        };
        let (ticket, reply) = Ticket::take(&handle.shared).map_err(Unanswered::Closed)?;
        let frame = request.encode(ticket.sync).map_err(Unanswered::Encode)?;
        if handle
            .queue
            .send(Queued {
                sync: ticket.sync,
                frame,
            })
            .await
            .is_err()
        {
            return Err(self.closed().await.into());
        }
        match reply.await {
            Ok(answer) => answer,
            Err(_gone) => Err(self.closed().await.into()),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.handle.peer)
            .finish_non_exhaustive()
    }
}

impl From<Ended> for Unanswered {
    fn from(ended: Ended) -> Self {
        Self::Closed(ended)
    }
}

fn encode_args<A: Serialize + ?Sized>(args: &A, what: &str) -> Result<Args, RequestError> {
    Args::encode(args).map_err(|source| encode_error(source, what))
}

fn encode_error(source: EncodeError, what: &str) -> RequestError {
    let what = what.to_owned();
    match source {
        EncodeError::TooLarge { len } => RequestError::TooLarge { what, len },
        EncodeError::Args(_) | EncodeError::NotAnArray => RequestError::Encode { what, source },
    }
}

/// One deadline for several steps.
struct Limit<'a> {
    sleep: Pin<&'a mut Sleep>,
    after: Duration,
}

impl Limit<'_> {
    async fn apply<F: Future>(&mut self, step: Step, future: F) -> Result<F::Output, OpenError> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = self.sleep.as_mut() => Err(OpenError::Timeout { step, after: self.after }),
        }
    }
}

/// Reads the greeting and maybe more into `received`; after a silence of `patience` sends a [`NUDGE`].
async fn greet(
    socket: &mut Socket,
    received: &mut Vec<u8>,
    patience: Duration,
) -> Result<Greeting, OpenError> {
    let mut nudge_at = pin!(sleep(patience));
    let mut nudged = false;
    loop {
        match Greeting::parse(received) {
            Ok(Some(greeting)) => return Ok(greeting),
            Ok(None) => {}
            Err(found) => return Err(OpenError::NotTarantool { found: found.0 }),
        }
        let mut chunk = [0; GREETING_LEN];
        tokio::select! {
            biased;
            read = socket.reader.read(&mut chunk) => match read {
                Ok(0) => return Err(OpenError::Closed(Ended::Eof)),
                Ok(len) => received.extend_from_slice(&chunk[..len]),
                Err(error) => return Err(OpenError::Closed(Ended::from(&error))),
            },
            () = nudge_at.as_mut(), if !nudged => {
                nudged = true;
                // A fresh socket's buffer takes these few bytes at once.
                socket.writer.write_all(&NUDGE).await.map_err(|error| OpenError::Closed(Ended::from(&error)))?;
            }
        }
    }
}

/// The task: serves the socket until it ends.
async fn run(
    shared: Arc<Shared>,
    reader: impl AsyncRead + Unpin,
    decoder: Decoder,
    writer: impl AsyncWrite + Unpin,
    queued: mpsc::Receiver<Queued>,
) {
    // Both directions at once: an instance that does not read must not keep us from reading.
    let ended = tokio::select! {
        biased;
        ended = read_replies(&shared, reader, decoder) => ended,
        ended = write_requests(&shared, writer, queued) => ended,
    };
    shared.end(ended);
}

async fn read_replies(
    shared: &Shared,
    mut reader: impl AsyncRead + Unpin,
    mut decoder: Decoder,
) -> Ended {
    let mut chunk = vec![0; READ_LEN];
    loop {
        loop {
            match decoder.next_reply() {
                Ok(Some(reply)) => shared.deliver(reply),
                Ok(None) => break,
                Err(malformed) => return Ended::Broken(malformed.to_string()),
            }
        }
        match reader.read(&mut chunk).await {
            Ok(0) => return Ended::Eof,
            Ok(len) => decoder.feed(&chunk[..len]),
            Err(error) => return Ended::from(&error),
        }
    }
}

async fn write_requests(
    shared: &Shared,
    mut writer: impl AsyncWrite + Unpin,
    mut queued: mpsc::Receiver<Queued>,
) -> Ended {
    while let Some(Queued { sync, frame }) = queued.recv().await {
        // A request that its caller gave up while it waited for a hung instance must not be executed when the instance
        // wakes up.
        if !shared.is_awaited(sync) {
            continue;
        }
        if let Err(error) = writer.write_all(&frame).await {
            return Ended::from(&error);
        }
    }
    // No handle is left, so nobody will see this.
    Ended::Eof
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No panic can leave the map half-changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_awaited(&self, sync: u64) -> bool {
        self.lock().requests.contains_key(&sync)
    }

    fn deliver(&self, reply: Reply) {
        let request = self.lock().requests.remove(&reply.sync);
        if let Some(request) = request {
            // The receiver may be gone: its deadline passed just now.
            drop(request.send(reply.outcome.map_err(Unanswered::Refused)));
        }
    }

    fn end(&self, ended: Ended) {
        let requests = {
            let mut waiting = self.lock();
            waiting.ended = Some(ended.clone());
            std::mem::take(&mut waiting.requests)
        };
        for request in requests.into_values() {
            drop(request.send(Err(Unanswered::Closed(ended.clone()))));
        }
        self.ended.send_replace(Some(ended));
    }
}

/// A place among the waiting; given up when dropped.
struct Ticket<'a> {
    shared: &'a Shared,
    sync: u64,
}

impl<'a> Ticket<'a> {
    fn take(shared: &'a Shared) -> Result<(Self, oneshot::Receiver<Answer>), Ended> {
        let (request, reply) = oneshot::channel();
        let mut waiting = shared.lock();
        if let Some(ended) = &waiting.ended {
            return Err(ended.clone());
        }
        waiting.last_sync += 1;
        let sync = waiting.last_sync;
        waiting.requests.insert(sync, request);
        Ok((Self { shared, sync }, reply))
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.shared.lock().requests.remove(&self.sync);
    }
}
