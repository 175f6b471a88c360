//! What a process costs.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::Process;

/// What a process has and has used, as the kernel accounts for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub resident_kib: u64,
    /// The most that was ever resident, in KiB.
    pub resident_peak_kib: u64,
    /// Processor time of all threads so far, user and system, to the kernel's tick (10 ms).
    pub cpu: Duration,
}

impl Process {
    /// What the process costs.
    ///
    /// # Errors
    /// [`Error::NotRunning`], or when the kernel's files cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        let pid = self.pid().ok_or_else(|| Error::NotRunning {
            name: self.name().to_owned(),
        })?;
        let status = read(&format!("/proc/{pid}/status"))?;
        let stat = read(&format!("/proc/{pid}/stat"))?;
        let kib = |field| {
            field_kib(&status, field)
                .ok_or_else(|| Error::malformed(format!("{field} of {}", self.name())))
        };
        let ticks = cpu_ticks(&stat)
            .ok_or_else(|| Error::malformed(format!("the processor time of {}", self.name())))?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Usage {
            resident_kib: kib("VmRSS")?,
            resident_peak_kib: kib("VmHWM")?,
            cpu: Duration::from_secs(ticks) / u32::try_from(per_second).unwrap_or(100),
        })
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io(format!("read {path}")))
}

fn field_kib(status: &str, field: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// `utime` and `stime`, the 12th and 13th field after the name (proc(5)), which may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 9 0 0 0 123 45 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(168));
        let status = "Name:\tx\nVmHWM:\t    9000 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!(field_kib(status, "VmRSS"), Some(8192));
        assert_eq!(field_kib(status, "VmHWM"), Some(9000));
        assert_eq!(field_kib(status, "VmSwap"), None);
    }
}
