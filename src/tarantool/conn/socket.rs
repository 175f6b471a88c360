//! From an address to a connected socket, and what its refusal is worth.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::error::OpenError;
use crate::process::FarEnd;

/// A connected socket, TCP or unix.
pub(super) struct Socket {
    pub(super) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) peer: String,
    pub(super) far_end: io::Result<FarEnd>,
}

/// Tries the addresses in the resolver's order.
pub(super) async fn connect_tcp(addresses: Vec<SocketAddr>) -> Result<Socket, OpenError> {
    let mut failures = Vec::new();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small requests must not wait for the acknowledgement of the one before.
                stream.set_nodelay(true).map_err(OpenError::Unreachable)?;
                let here = stream.local_addr();
                let far_end = here.and_then(|here| {
                    let there = stream.peer_addr()?;
                    Ok(FarEnd::Tcp { here, there })
                });
                let (reader, writer) = stream.into_split();
                return Ok(Socket {
                    reader: Box::new(reader),
                    writer: Box::new(writer),
                    peer: address.to_string(),
                    far_end,
                });
            }
            Err(error) => failures.push(error),
        }
    }
    Err(verdict(failures))
}

pub(super) async fn connect_unix(path: &std::path::Path) -> Result<Socket, OpenError> {
    match UnixStream::connect(path).await {
        Ok(stream) => {
            let far_end = stream.peer_cred().map(|listener| FarEnd::Unix {
                // 0 is a process of another PID namespace.
                pid: listener
                    .pid()
                    .and_then(|pid| u32::try_from(pid).ok())
                    .filter(|pid| *pid > 0),
            });
            let (reader, writer) = stream.into_split();
            Ok(Socket {
                reader: Box::new(reader),
                writer: Box::new(writer),
                peer: path.display().to_string(),
                far_end,
            })
        }
        Err(error) => Err(verdict(vec![error])),
    }
}

/// A host with several addresses counts as refusing only if one of them refused and no server could be listening at any
/// of the others: a refusal is taken as proof elsewhere.
pub(super) fn verdict(failures: Vec<io::Error>) -> OpenError {
    let mut refused = None;
    let mut absent = None;
    for error in failures {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            refused = Some(error);
        } else if is_no_such_family(&error) {
            absent = Some(error);
        } else {
            return OpenError::Unreachable(error);
        }
    }
    match (refused, absent) {
        (Some(error), _) => OpenError::Refused(error),
        (None, Some(error)) => OpenError::Unreachable(error),
        (None, None) => OpenError::Unreachable(io::Error::new(
            io::ErrorKind::NotFound,
            "the host has no address",
        )),
    }
}

/// `EADDRNOTAVAIL` and `EAFNOSUPPORT` are what `::1` for `localhost` gives where IPv6 is switched off.
fn is_no_such_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}
