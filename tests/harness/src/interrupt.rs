//! Programs that start real processes end them and remove what they made, also when somebody presses Ctrl-C.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a program that `SIGINT` has ended, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Runs a future to its end, or until a signal asks the program to end (`SIGINT`, `SIGTERM`, `SIGHUP`): then the future
/// is dropped, and with it every world in it.
///
/// # Errors
/// The signal's name.
pub async fn unless_interrupted<T>(future: impl Future<Output = T>) -> Result<T, &'static str> {
    tokio::select! {
        ended = future => Ok(ended),
        name = interrupted() => Err(name),
    }
}

async fn interrupted() -> &'static str {
    let hears = |kind: SignalKind| signal(kind).ok();
    let (int, term, hup) = (
        hears(SignalKind::interrupt()),
        hears(SignalKind::terminate()),
        hears(SignalKind::hangup()),
    );
    tokio::select! {
        () = comes(int) => "SIGINT",
        () = comes(term) => "SIGTERM",
        () = comes(hup) => "SIGHUP",
    }
}

/// A signal that cannot be heard ends the program as it always did.
async fn comes(signal: Option<Signal>) {
    let heard = match signal {
        Some(mut signal) => signal.recv().await,
        None => None,
    };
    if heard.is_none() {
        std::future::pending::<()>().await;
    }
}
