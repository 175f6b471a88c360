//! Whether a process is the one that an agent's connection leads to.
//!
//! A server names its own process, and that process may get SIGKILL. So a word is not enough: the kernel says who holds the
//! other end of this very connection, not of another one to the same port. What it says depends on what this agent may ask:
//!
//! | the connection | what shows it |
//! | --- | --- |
//! | a unix socket | the process that listens, by `SO_PEERCRED` (unix(7)) |
//! | TCP, an instance of the agent's own user, or `CAP_SYS_PTRACE` | the socket's inode among the process's descriptors |
//! | TCP, an instance of another user | the socket's user is the process's user |
//!
//! The last is weaker, and enough for what comes of it: whoever answers there runs as that user, and may end every process of
//! that user without this agent.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};

use rustix::process::{Pid, getpid, getppid};

/// The other end of a connection, as seen from this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FarEnd {
    /// The process that listens at the socket's path; `None`: it is in no PID namespace of ours.
    Unix {
        /// Its id.
        pid: Option<u32>,
    },
    /// The two addresses of the connection.
    Tcp {
        /// Ours.
        here: SocketAddr,
        /// The server's.
        there: SocketAddr,
    },
}

/// Why a process is not taken for the one at the other end.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The end of that process would be the end of this agent, or of everything.
    #[error("the instance says that it is process {pid}, and that is {what}")]
    NeverOurs {
        /// Its id.
        pid: u32,
        /// Who that is.
        what: &'static str,
    },
    /// Another process listens there.
    #[error("the instance says that it is process {pid}, and the socket is that of {}", named(.found))]
    Another {
        /// The id that it named.
        pid: u32,
        /// The process that listens; `None`: it cannot be seen from here.
        found: Option<u32>,
    },
    /// The other end is on another host, or in another network namespace.
    #[error(
        "the other end of the connection ({there}) is not in this agent's network namespace, so nothing shows whose it is"
    )]
    Elsewhere {
        /// The server's address.
        there: SocketAddr,
    },
    /// Another process holds the other end.
    #[error(
        "the instance says that it is process {pid}, which does not hold the other end of the connection ({there})"
    )]
    NotHeld {
        /// The id that it named.
        pid: u32,
        /// The server's address.
        there: SocketAddr,
    },
    /// A process of another user holds the other end.
    #[error(
        "the instance says that it is process {pid} of user {owner}, and the other end of the connection ({there}) is of user \
         {user}"
    )]
    OtherUser {
        /// The id that it named.
        pid: u32,
        /// That process's user.
        owner: u32,
        /// The server's address.
        there: SocketAddr,
        /// The socket's user.
        user: u32,
    },
    /// Both have users that this user namespace does not know, and all such users look alike.
    #[error(
        "process {pid} is of a user that this agent's user namespace does not know, so nothing shows whose it is"
    )]
    Unmapped {
        /// The id that it named.
        pid: u32,
    },
    /// The file that tells could not be read.
    #[error("could not read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

fn named(found: &Option<u32>) -> String {
    found.map_or_else(
        || "a process that cannot be seen from here".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// A table of more sockets than any host has is not read to its end.
const SOCKETS_MAX: usize = 4_000_000;
/// More descriptors than a process may have (`fs.nr_open`).
const DESCRIPTORS_MAX: usize = 2_000_000;
/// Longer than any `status`.
const STATUS_SIZE: u64 = 64 * 1024;

/// Whether this process holds the far end. It may block.
///
/// # Errors
/// It does not, or nothing shows that it does.
pub fn check(pid: u32, far_end: FarEnd) -> Result<(), OwnerError> {
    if let Some(what) = never_ours(pid, &leaders(OWN_STAT)?) {
        return Err(OwnerError::NeverOurs { pid, what });
    }
    let (here, there) = match far_end {
        FarEnd::Unix { pid: found } if found == Some(pid) => return Ok(()),
        FarEnd::Unix { pid: found } => return Err(OwnerError::Another { pid, found }),
        FarEnd::Tcp { here, there } => (here, there),
    };
    let Some(socket) = socket_of(here, there)? else {
        return Err(OwnerError::Elsewhere { there });
    };
    match holds(pid, socket.inode) {
        Ok(true) => Ok(()),
        Ok(false) => Err(OwnerError::NotHeld { pid, there }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            same_user(pid, socket.user, there)
        }
        Err(source) => Err(OwnerError::Unreadable {
            path: format!("/proc/{pid}/fd"),
            source,
        }),
    }
}

/// What no server may make an agent kill, whatever it shows.
fn never_ours(pid: u32, leaders: &[u32]) -> Option<&'static str> {
    let is = |other: Option<Pid>| {
        other.is_some_and(|other| other.as_raw_nonzero().get().cast_unsigned() == pid)
    };
    if pid <= 1 {
        Some("no process of an instance: the first one ends everything in its PID namespace")
    } else if is(Some(getpid())) {
        Some("this agent")
    } else if is(getppid()) {
        Some("this agent's parent")
    } else if leaders.contains(&pid) {
        Some("the leader of this agent's own process group or session")
    } else {
        None
    }
}

const OWN_STAT: &str = "/proc/self/stat";

/// The leaders of a process's group and session; 0 stands for one outside its PID namespace, as in a container that was
/// started from outside it. (The system calls of rustix know no such leader.)
fn leaders(path: &str) -> Result<[u32; 2], OwnerError> {
    read(path, leaders_in)
}

/// proc(5): behind the name come state, ppid, pgrp, session.
fn leaders_in(stat: &str) -> Option<[u32; 2]> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(2);
    let mut next = || fields.next()?.parse().ok();
    Some([next()?, next()?])
}

/// The server's side of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    inode: u64,
    user: u32,
}

fn socket_of(here: SocketAddr, there: SocketAddr) -> Result<Option<Socket>, OwnerError> {
    // A server that listens at IPv6's wildcard has IPv4 connections in the other table.
    let (tcp, tcp6) = ("/proc/self/net/tcp", "/proc/self/net/tcp6");
    let plain = [(tcp, here, there), (tcp6, mapped(here), mapped(there))];
    let tables = plain
        .into_iter()
        .filter(|(table, ..)| *table == tcp6 || here.is_ipv4());
    for (table, here, there) in tables {
        let file = match File::open(table) {
            Ok(file) => file,
            // A kernel without IPv6.
            Err(error) if table == tcp6 && error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => {
                let path = table.to_owned();
                return Err(OwnerError::Unreadable { path, source });
            }
        };
        let found = find(BufReader::new(file), here, there);
        let found = found.map_err(|source| OwnerError::Unreadable {
            path: table.to_owned(),
            source,
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The socket whose own address is `there` and whose peer is `here`. A socket that is not accepted yet, or closed already, has
/// no inode.
fn find(table: impl BufRead, here: SocketAddr, there: SocketAddr) -> io::Result<Option<Socket>> {
    let wanted = [in_table(there), in_table(here)];
    for line in table.lines().skip(1).take(SOCKETS_MAX) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_wanted = wanted
            .iter()
            .all(|wanted| fields.next() == Some(wanted.as_str()));
        if !is_wanted {
            continue;
        }
        // proc(5): the two addresses, then st, tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout, inode.
        let user = fields.nth(4).and_then(|user| user.parse().ok());
        let inode = fields.nth(1).and_then(|inode| inode.parse().ok());
        return Ok(user
            .zip(inode)
            .filter(|(_, inode)| *inode != 0)
            .map(|(user, inode)| Socket { inode, user }));
    }
    Ok(None)
}

/// As the tables write it: each 32 bits of the address as a number of this machine, in hexadecimal (`net/ipv4/tcp_ipv4.c`,
/// `get_tcp4_sock`).
fn in_table(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|word| {
        let word = <[u8; 4]>::try_from(word).unwrap_or_default();
        format!("{:08X}", u32::from_ne_bytes(word))
    });
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

/// Whether the process has that socket open. It takes `PTRACE_MODE_READ_FSCREDS` (proc(5), `/proc/pid/fd`): the same user, or
/// `CAP_SYS_PTRACE`.
fn holds(pid: u32, inode: u64) -> io::Result<bool> {
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.take(DESCRIPTORS_MAX) {
        match fs::read_link(entry?.path()) {
            Ok(target) if target.as_os_str() == wanted.as_str() => return Ok(true),
            Ok(_) => {}
            // Closed since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn same_user(pid: u32, user: u32, there: SocketAddr) -> Result<(), OwnerError> {
    let owner = read(&format!("/proc/{pid}/status"), file_system_user)?;
    let unmapped: u32 = read("/proc/sys/kernel/overflowuid", |text| {
        text.trim().parse().ok()
    })?;
    if unmapped == owner {
        return Err(OwnerError::Unmapped { pid });
    }
    if owner != user {
        return Err(OwnerError::OtherUser {
            pid,
            owner,
            there,
            user,
        });
    }
    Ok(())
}

/// What a small file says.
fn read<T>(path: &str, parsed: impl Fn(&str) -> Option<T>) -> Result<T, OwnerError> {
    // A process's name is any bytes.
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(STATUS_SIZE).read_to_end(&mut bytes))
        .and_then(|_| {
            let found = parsed(&String::from_utf8_lossy(&bytes));
            found.ok_or_else(|| io::ErrorKind::InvalidData.into())
        })
        .map_err(|source| OwnerError::Unreadable {
            path: path.to_owned(),
            source,
        })
}

/// The user that the process's sockets are given (`Uid:` real, effective, saved, file system).
fn file_system_user(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn far_end(client: &TcpStream) -> FarEnd {
        FarEnd::Tcp {
            here: client.local_addr().unwrap(),
            there: client.peer_addr().unwrap(),
        }
    }

    /// A process of our own user that has nothing to do with the connection.
    struct Bystander(std::process::Child);

    impl Bystander {
        fn start() -> Self {
            let mut command = Command::new("sleep");
            Self(command.arg("60").stdin(Stdio::null()).spawn().unwrap())
        }
    }

    impl Drop for Bystander {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn the_process_at_the_other_end_is_told_from_every_other() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                // A machine without IPv6.
                assert!(address.starts_with('['), "{address}");
                continue;
            };
            let mut server = listener.local_addr().unwrap();
            if server.ip().is_unspecified() {
                server.set_ip("127.0.0.1".parse().unwrap());
            }
            let client = TcpStream::connect(server).unwrap();
            let FarEnd::Tcp { here, there } = far_end(&client) else {
                unreachable!("it is TCP")
            };
            // Nobody has accepted it: nobody holds it.
            assert_eq!(socket_of(here, there).unwrap(), None, "{address}");
            let (_accepted, _) = listener.accept().unwrap();
            let socket = socket_of(here, there).unwrap().expect("it was accepted");
            let own = std::process::id();
            assert!(holds(own, socket.inode).unwrap());
            let bystander = Bystander::start();
            let error = check(bystander.0.id(), far_end(&client)).unwrap_err();
            assert!(matches!(error, OwnerError::NotHeld { .. }), "{error}");
            // By its user alone it would be ours; the descriptors say better.
            same_user(bystander.0.id(), socket.user, there).unwrap();
            let error = same_user(bystander.0.id(), socket.user + 1, there).unwrap_err();
            assert!(matches!(error, OwnerError::OtherUser { .. }), "{error}");
        }
    }

    #[test]
    fn a_connection_that_leads_away_shows_nobody() {
        let far_end = FarEnd::Tcp {
            here: "192.0.2.1:40000".parse().unwrap(),
            there: "192.0.2.2:3301".parse().unwrap(),
        };
        let bystander = Bystander::start();
        let error = check(bystander.0.id(), far_end).unwrap_err();
        assert!(matches!(error, OwnerError::Elsewhere { .. }), "{error}");
    }

    #[test]
    fn a_unix_socket_shows_its_listener() {
        let bystander = Bystander::start();
        let pid = bystander.0.id();
        check(pid, FarEnd::Unix { pid: Some(pid) }).unwrap();
        for other in [None, Some(pid + 1)] {
            let error = check(pid, FarEnd::Unix { pid: other }).unwrap_err();
            assert!(matches!(error, OwnerError::Another { .. }), "{error}");
        }
    }

    #[test]
    fn what_an_agent_lives_in_is_never_an_instance() {
        let parent = getppid().map_or(1, |pid| pid.as_raw_nonzero().get().cast_unsigned());
        let own = [0, 1, std::process::id(), parent];
        for pid in own.into_iter().chain(leaders(OWN_STAT).unwrap()) {
            let error = check(pid, FarEnd::Unix { pid: Some(pid) }).unwrap_err();
            assert!(matches!(error, OwnerError::NeverOurs { .. }), "{error}");
        }
    }

    #[test]
    fn the_leaders_of_a_group_and_a_session_are_read_from_where_they_stand() {
        let bystander = Bystander::start();
        let ours = leaders(OWN_STAT).unwrap();
        assert_eq!(
            leaders(&format!("/proc/{}/stat", bystander.0.id())).unwrap(),
            ours
        );
        assert_eq!(leaders_in("7 (a) S 9 (9) S 1 5 6 34816 7"), Some([5, 6]));
        // Both outside this PID namespace.
        assert_eq!(leaders_in("7 (a) S 1 0 0 0 -1"), Some([0, 0]));
        assert_eq!(leaders_in("7 (a) S 1 -1 6"), None);
        assert_eq!(leaders_in("7 (a) S 1 5"), None);
    }

    #[test]
    fn the_user_is_read_from_where_it_stands() {
        let status = "Name:\tUid: 0 0 0 0\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
        assert_eq!(file_system_user(status), Some(4));
        assert_eq!(file_system_user("Uid:\t1\t2"), None);
    }

    proptest! {
        #[test]
        fn any_table_is_read(text in "\\PC{0,200}", header in "[a-z ]{0,20}") {
            let address = "127.0.0.1:3301".parse().unwrap();
            let _ = find(format!("{header}\n{text}\n").as_bytes(), address, address);
            let _ = file_system_user(&text);
        }
    }
}
