//! The instance's process, where it can be seen from here: proof of death, and the means to end it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::decide::observed::Probe;

pub mod owner;

pub use owner::{FarEnd, OwnerError};

/// `PF_EXITING` in the flags field of `/proc/<pid>/stat` (`include/linux/sched.h`): the thread is being shut down
/// and will never run the program's code again. It shows before the memory of a large process is given back.
const PF_EXITING: u64 = 0x4;

/// A process that we share a PID namespace with.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    /// `/proc/<pid>/stat`, held open: it speaks of this process alone, never of a later one with the same id. Reading it
    /// takes no lock of the process's memory (`do_task_stat`, Linux `fs/proc/array.c`), unlike `cmdline`, `environ` or
    /// `maps`, so a process that hangs in a page fault does not hold the reader.
    stat: File,
    /// `/proc/<pid>/comm`, the name of its main thread, likewise.
    name: File,
}

/// Longer than any name (`TASK_COMM_LEN` in `include/linux/sched.h`).
const NAME_SIZE: usize = 32;

/// `stat` has 52 numbers and a name of at most 64 bytes; `flags` comes early in it.
const STAT_SIZE: usize = 1024;

/// Why the instance's process cannot be seen from here.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Another machine, or a container.
    #[error("the instance does not share this agent's PID namespace")]
    Elsewhere,
    /// The file that tells could not be read.
    #[error("could not read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// There is no such process, or the kernel would not give it to us.
    #[error("could not open process {pid}")]
    Open {
        /// Its id.
        pid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It could be opened but not be killed.
    #[error("may not send signals to process {pid}")]
    NotAllowed {
        /// Its id.
        pid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Process {
    /// Opens the process that `probe` speaks of, if it is on this machine and in our PID namespace. The caller asks
    /// the same connection once more afterwards: an answer proves that the id was not used again in between.
    ///
    /// # Errors
    /// It is elsewhere, gone, or not ours to signal.
    pub fn of(probe: &Probe) -> Result<Self, ProcessError> {
        let own_namespace = read_link("/proc/self/ns/pid")?;
        let own_boot = read("/proc/sys/kernel/random/boot_id")?;
        let same_namespace = probe.pid_namespace.as_deref() == Some(own_namespace.as_str());
        let same_boot = probe.boot_id.as_deref() == Some(own_boot.trim());
        if !(same_namespace && same_boot) {
            return Err(ProcessError::Elsewhere);
        }
        Self::open(probe.pid)
    }

    fn open(pid: u32) -> Result<Self, ProcessError> {
        let failed = |source: io::Error| ProcessError::Open { pid, source };
        let id = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidInput)))?;
        let pidfd = pidfd_open(id, PidfdFlags::NONBLOCK).map_err(|errno| failed(errno.into()))?;
        // Without its stat the process would be there and its death could not be seen in time.
        let file = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            File::open(&path).map_err(|source| ProcessError::Unreadable { path, source })
        };
        let (stat, name) = (file("stat")?, file("comm")?);
        // Signal 0 asks for permission only; it has no name of its own, so the process itself is asked.
        rustix::process::test_kill_process(id).map_err(|errno| ProcessError::NotAllowed {
            pid,
            source: errno.into(),
        })?;
        #[allow(
            deprecated,
            reason = "its successor is an unsafe fn; an OwnedFd upholds what that asks of its caller"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE).map_err(failed)?;
        Ok(Self {
            pid,
            pidfd,
            stat,
            name,
        })
    }

    /// Its id, for people.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name of its main thread, which only the process itself can change.
    ///
    /// # Errors
    /// It is gone.
    pub fn name(&self) -> io::Result<String> {
        let mut buffer = [0; NAME_SIZE];
        let length = self.name.read_at(&mut buffer, 0)?;
        Ok(String::from_utf8_lossy(&buffer[..length])
            .trim_end_matches('\n')
            .to_owned())
    }

    /// Whether it is on its way out or gone, and how we know.
    #[must_use]
    pub fn death(&self) -> Option<String> {
        let pid = self.pid;
        let mut buffer = [0; STAT_SIZE];
        match self.stat.read_at(&mut buffer, 0) {
            Ok(length) => is_exiting(&String::from_utf8_lossy(&buffer[..length]))
                .then(|| format!("process {pid} is exiting")),
            // Gone and reaped (ESRCH), or not ours to read any more: the pidfd knows which.
            Err(_) => self.has_exited().then(|| format!("process {pid} is gone")),
        }
    }

    fn has_exited(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .is_ok_and(|ready| ready > 0)
    }

    /// Resolves when it has exited.
    pub async fn exited(&self) -> String {
        match self.pidfd.readable().await {
            Ok(_) => format!("process {} has exited", self.pid),
            // Without the event there is still `death`.
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends it with SIGKILL; it cannot refuse, even while it is stopped.
    ///
    /// # Errors
    /// Gone already, or not ours to kill.
    pub fn kill(&self) -> io::Result<()> {
        pidfd_send_signal(&self.pidfd, Signal::KILL).map_err(io::Error::from)
    }
}

/// The process's name stands in parentheses and may contain anything, so fields count from the last one; `flags`
/// is the seventh after it (proc(5): pid, comm, state, ppid, pgrp, session, tty_nr, tpgid, flags). A zombie has
/// left nothing that could write.
fn is_exiting(stat: &str) -> bool {
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next();
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    matches!(state, Some("Z" | "X")) || flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// The reader of `/proc/<pid>/stat`, for a fuzzer.
#[cfg(fuzzing)]
#[must_use]
pub fn reads_as_exiting(stat: &str) -> bool {
    is_exiting(stat)
}

fn read_link(path: &str) -> Result<String, ProcessError> {
    let target = std::fs::read_link(path).map_err(|source| ProcessError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(target.to_string_lossy().into_owned())
}

fn read(path: &str) -> Result<String, ProcessError> {
    std::fs::read_to_string(path).map_err(|source| ProcessError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_exiting;

    proptest! {
        #[test]
        fn any_text_is_read_and_a_name_is_never_taken_for_a_state(text in ".{0,80}", name in ".{0,15}") {
            let _ = is_exiting(&text);
            let alive = format!("42 ({name}) S 1 42 42 0 -1 4194304 0 0 0");
            prop_assert!(!is_exiting(&alive));
            let dead = format!("42 ({name}) Z 1 42 42 0 -1 4194304 0 0 0");
            prop_assert!(is_exiting(&dead));
        }
    }

    #[test]
    fn exiting_is_read_from_the_flags_whatever_the_name() {
        let stat =
            |state: &str, flags: u64| format!("42 (a) b (c)) {state} 1 42 42 0 -1 {flags} 0 0 0");
        assert!(!is_exiting(&stat("S", 0x0040_0040)));
        assert!(is_exiting(&stat("R", 0x0040_0044)));
        assert!(is_exiting(&stat("Z", 0)));
        assert!(!is_exiting("nonsense"));
    }
}
