//! Ports that parallel tests do not fight over.
//!
//! Ports come from 10000–31999, below the kernel's range for outgoing connections, so that no client's socket takes one
//! between two starts of a server. A port is ours while we hold the lock of its file in `<tmp>/tarsec-harness-ports/`;
//! the kernel drops the lock when the process ends, however it ends. A locked port is also tried with `bind`, because
//! of programs that know nothing of locks.

use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::error::{Error, Result};

const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// Where this process looks next, so that one test binary does not search the same ports again.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1 that is ours until this value is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: File,
}

pub(crate) fn reserve() -> Result<Port> {
    let lock_dir = std::env::temp_dir().join("tarsec-harness-ports");
    std::fs::create_dir_all(&lock_dir)
        .map_err(Error::io(format!("create {}", lock_dir.display())))?;
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // 37 is prime to the count: neighbours in process id search far apart.
        let offset = (u32::from(start) * 37 + u32::from(step)) % u32::from(COUNT);
        let number = FIRST + offset as u16;
        let path = lock_dir.join(number.to_string());
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io(format!("open {}", path.display())))?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        if TcpListener::bind(("127.0.0.1", number)).is_ok() {
            return Ok(Port {
                number,
                _lock: lock,
            });
        }
    }
    Err(Error::NoPort { lock_dir })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_out_twice() {
        let ports: Vec<Port> = (0..50).map(|_| reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(|port| port.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
