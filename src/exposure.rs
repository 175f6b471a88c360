//! What lies open to others without need: a secret's file that they may read or replace, a token that travels in the
//! clear, a server whose certificate nobody checks. It is said at the start, and nothing else comes of it: an agent that
//! refused would cost more than it saves.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use rustix::process::{getegid, geteuid};

use crate::config::{Config, ConsulConfig, is_this_host};

/// As many as the kernel follows (path_resolution(7)).
const LINKS_MAX: u32 = 40;
/// File systems in memory (statfs(2)).
const TMPFS_MAGIC: i128 = 0x0102_1994;
const RAMFS_MAGIC: i128 = 0x8584_58f6;
/// Directories in memory that a host has for everybody. What an orchestrator mounts for one container is none of them.
const SHARED_IN_MEMORY: [&str; 3] = ["/run", "/tmp", "/dev/shm"];

/// One thing that lies open. In words: what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// The server's certificate is not checked.
    Unverified {
        /// Where it is.
        base_url: String,
    },
    /// A secret goes over the network as it is.
    InTheClear {
        /// The variable that sets it.
        variable: &'static str,
        /// Where it goes.
        base_url: String,
    },
    /// Others may read or change a secret's file.
    Readable {
        /// The variable that names it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its group.
        group: u32,
    },
    /// A secret's file belongs to somebody who is neither root nor this process's user.
    Owned {
        /// The variable that names it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// The owner.
        user: u32,
    },
    /// Others may put something else in its place.
    Replaceable {
        /// The variable that names it.
        variable: &'static str,
        /// The file, as the variable has it.
        path: PathBuf,
        /// What on the way there may be replaced.
        entry: PathBuf,
        /// By whom.
        by: String,
    },
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unverified { base_url } => write!(
                f,
                "CONSUL_HTTP_SSL_VERIFY is false: any server that answers at {base_url} passes for Consul, gets the token and \
                 says who is master; allowed is true, with CONSUL_CACERT or CONSUL_CAPATH for an authority of your own"
            ),
            Self::InTheClear { variable, base_url } => write!(
                f,
                "{variable} is set and CONSUL_HTTP_ADDR is {base_url}: the secret crosses the network in the clear; allowed is \
                 https://, or http:// to this host (127.0.0.1, ::1 or localhost)"
            ),
            Self::Readable {
                variable,
                path,
                mode,
                group,
            } => write!(
                f,
                "{variable} names {}, whose mode is {mode:04o} and whose group is {group}: other users may {} it; allowed is \
                 0600, or 0640 where the group is root's or the agent's own",
                path.display(),
                if mode & 0o022 == 0 {
                    "read"
                } else {
                    "read or change"
                },
            ),
            Self::Owned {
                variable,
                path,
                user,
            } => write!(
                f,
                "{variable} names {}, which belongs to user {user}, who may read and change it; allowed is a file of root or of \
                 the agent's own user",
                path.display()
            ),
            Self::Replaceable {
                variable,
                path,
                entry,
                by,
            } => write!(
                f,
                "{variable} names {}, and {by} may replace {} on the way there; allowed is a path on which only root and the \
                 agent's own user may change links and directories",
                path.display(),
                entry.display()
            ),
        }
    }
}

/// All that is known of an agent's settings. Reads the metadata of files.
#[must_use]
pub(crate) fn of_agent(config: &Config) -> Vec<Exposure> {
    let vshard = config.vshard.login.as_ref().map(|(_, password)| password);
    let passwords = [Some(&config.tarantool.password), vshard];
    let files = passwords
        .into_iter()
        .flatten()
        .filter_map(|secret| secret.file());
    let files = files.flat_map(|(variable, path)| of_file(variable, path, Me::now()));
    let http = config.http.as_ref().and_then(|http| http.tls.as_ref());
    let keys = http.map(|tls| of_file("HTTP_TLS_KEY", &tls.key, Me::now()));
    let of_consul = of_consul(&config.consul).into_iter();
    of_consul
        .chain(files)
        .chain(keys.into_iter().flatten())
        .collect()
}

/// The same of what every command has.
#[must_use]
pub(crate) fn of_consul(config: &ConsulConfig) -> Vec<Exposure> {
    let base_url = config.base_url.clone();
    let speaks_tls = base_url.starts_with("https:");
    let mut found = Vec::new();
    if speaks_tls && config.tls.skip_verify {
        found.push(Exposure::Unverified {
            base_url: base_url.clone(),
        });
    }
    let token = config.token.as_ref();
    let token = token.map(|token| token.file_variable().unwrap_or("CONSUL_HTTP_TOKEN"));
    let login = config.basic_auth.as_ref().map(|_| "CONSUL_HTTP_AUTH");
    if !speaks_tls && !is_this_host(&base_url) {
        for variable in token.into_iter().chain(login) {
            let base_url = base_url.clone();
            found.push(Exposure::InTheClear { variable, base_url });
        }
    }
    let token_file = config.token.as_ref().and_then(|token| token.file());
    let key = config.tls.client.as_ref().filter(|_| speaks_tls);
    let key = key.map(|(_, key)| ("CONSUL_CLIENT_KEY", key.as_path()));
    for (variable, path) in token_file.into_iter().chain(key) {
        found.extend(of_file(variable, path, Me::now()));
    }
    found
}

/// The users and groups that may read what this process reads.
#[derive(Debug, Clone, Copy)]
struct Me {
    user: u32,
    group: u32,
}

impl Me {
    fn now() -> Self {
        Self {
            user: geteuid().as_raw(),
            group: getegid().as_raw(),
        }
    }

    fn trusts_user(self, user: u32) -> bool {
        user == 0 || user == self.user
    }

    fn trusts_group(self, group: u32) -> bool {
        group == 0 || group == self.group
    }
}

/// A file that cannot be looked at is complained about where it is read.
fn of_file(variable: &'static str, path: &Path, me: Me) -> Vec<Exposure> {
    let mut found = Vec::new();
    if let Ok(Some((entry, by))) = replaceable(path, me) {
        found.push(Exposure::Replaceable {
            variable,
            path: path.to_owned(),
            entry,
            by,
        });
    }
    let Ok(file) = fs::metadata(path) else {
        return found;
    };
    if is_mounted_for_us(path, &file) {
        return found;
    }
    if me.user != 0 && !me.trusts_user(file.uid()) {
        found.push(Exposure::Owned {
            variable,
            path: path.to_owned(),
            user: file.uid(),
        });
    }
    if is_open(file.mode(), file.gid(), me) {
        found.push(Exposure::Readable {
            variable,
            path: path.to_owned(),
            mode: file.mode() & 0o7777,
            group: file.gid(),
        });
    }
    found
}

fn is_open(mode: u32, group: u32, me: Me) -> bool {
    let for_others = mode & 0o007;
    let for_group = if me.trusts_group(group) {
        mode & 0o020
    } else {
        mode & 0o070
    };
    for_others | for_group != 0
}

/// Kubernetes and Docker Swarm mount each secret from memory, read-only and for one container, with modes such as 0644
/// and 0444: nobody but the container's own processes sees it.
fn is_mounted_for_us(path: &Path, file: &Metadata) -> bool {
    let in_memory = statfs(path)
        .is_ok_and(|found| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&i128::from(found.f_type)));
    let read_only = statvfs(path).is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::RDONLY));
    let is_shared = SHARED_IN_MEMORY
        .iter()
        .any(|directory| fs::metadata(directory).is_ok_and(|it| it.dev() == file.dev()));
    in_memory && read_only && !is_shared && file.uid() == 0
}

/// What on the way to `path` another user may replace, and who. Every link is followed.
fn replaceable(path: &Path, me: Me) -> io::Result<Option<(PathBuf, String)>> {
    let mut ahead: VecDeque<OsString> = parts(&std::path::absolute(path)?);
    let mut reached = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            reached.pop();
            continue;
        }
        let entry = reached.join(&part);
        let (directory, found) = (fs::metadata(&reached)?, fs::symlink_metadata(&entry)?);
        if let Some(by) = replacer(&directory, &found, me) {
            return Ok(Some((entry, by)));
        }
        if !found.is_symlink() {
            reached = entry;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(io::Error::other("too many links"));
        }
        let target = fs::read_link(&entry)?;
        if target.is_absolute() {
            reached = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            ahead.push_front(part);
        }
    }
    Ok(None)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

/// Who else may remove the entry from its directory and put another there.
fn replacer(directory: &Metadata, entry: &Metadata, me: Me) -> Option<String> {
    if !me.trusts_user(directory.uid()) {
        return Some(format!("user {}", directory.uid()));
    }
    let mode = directory.mode();
    let everybody = (mode & 0o002 != 0).then(|| "every user".to_owned());
    let its_group = (mode & 0o020 != 0 && !me.trusts_group(directory.gid()))
        .then(|| format!("group {}", directory.gid()));
    let writers = everybody.or(its_group)?;
    // In a sticky directory an entry is its owner's.
    match mode & 0o1000 == 0 {
        true => Some(writers),
        false => (!me.trusts_user(entry.uid())).then(|| format!("user {}", entry.uid())),
    }
}

#[cfg(test)]
mod tests;
