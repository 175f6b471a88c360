//! Clocks that a story sets: a machine that is suspended, and a wall clock that is set.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::agent::AgentBuilder;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::tarantool::{Instance, ReplicaSetOptions};
use crate::world::World;

const SOURCE: &str = include_str!("../c/clocks.c");
/// In the file: by how much `CLOCK_MONOTONIC` is behind, and by how much the wall clock was set, in nanoseconds.
const SUSPENDED_AT: u64 = 0;
const WALL_AT: u64 = 8;
/// More machines have no clocks of their own.
const MACHINES: usize = 8;

/// A library that is preloaded into instances and agents, and the files by which their clocks are set.
#[derive(Debug)]
pub struct Clocks {
    library: PathBuf,
    dir: PathBuf,
}

impl Clocks {
    /// Builds the library with `cc`, for a world with one replica set.
    ///
    /// # Errors
    /// When there is no C compiler, or it does not take the source.
    pub fn build(world: &World) -> Result<Self> {
        Self::after_suspensions(world, Duration::ZERO)
    }

    /// The same on machines that had been suspended for so long before anything started.
    ///
    /// # Errors
    /// As [`Clocks::build`].
    pub fn after_suspensions(world: &World, suspended: Duration) -> Result<Self> {
        let shared = world.shared();
        let dir = shared.subdir("clocks")?;
        let source = shared.write("clocks.c", SOURCE)?;
        let library = world.dir().join("clocks.so");
        let flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"];
        let built = Command::new("cc")
            .args(flags)
            .args([&library, &source])
            .arg("-ldl")
            .output();
        let built = built.map_err(Error::io("run cc".to_owned()))?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr);
            return Err(Error::malformed(format!("{}: {said}", source.display())));
        }
        for index in 0..MACHINES {
            let path = dir.join(name_of(index));
            let suspended_ns = i64::try_from(suspended.as_nanos()).unwrap_or(i64::MAX);
            let shift = [suspended_ns, 0].map(i64::to_le_bytes).concat();
            std::fs::write(&path, shift).map_err(Error::io(format!("write {}", path.display())))?;
        }
        Ok(Self { library, dir })
    }

    /// Instances that read these clocks.
    #[must_use]
    pub fn instances(&self, options: ReplicaSetOptions) -> ReplicaSetOptions {
        let [library, clocks] = self.env(&self.dir);
        options
            .env("LD_PRELOAD", &library)
            .env("HARNESS_CLOCKS", &clocks)
    }

    /// The agent of the instance with that index, on the same machine.
    #[must_use]
    pub fn agent(&self, index: usize, agent: AgentBuilder) -> AgentBuilder {
        let [library, clocks] = self.env(&self.dir.join(name_of(index)));
        agent
            .env("LD_PRELOAD", &library)
            .env("HARNESS_CLOCKS", &clocks)
    }

    /// The machine stood suspended for so long more: freeze it before, and thaw it afterwards.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn was_suspended(&self, instance: &Instance, time: Duration) -> Result<()> {
        let path = self.path(instance);
        let mut before = [0; 8];
        let file = self.open(&path)?;
        file.read_exact_at(&mut before, SUSPENDED_AT)
            .map_err(Error::io(format!("read {}", path.display())))?;
        let time_ns = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let sum_ns = i64::from_le_bytes(before).saturating_add(time_ns);
        self.put(&path, SUSPENDED_AT, sum_ns)
    }

    /// Freezes a machine until `meanwhile` is over, and wakes it up without its having noticed but by `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    /// Those of `meanwhile`, and when the machine does not run.
    pub async fn suspend<T>(
        &self,
        machine: Machine<'_>,
        instance: &Instance,
        meanwhile: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let began = std::time::Instant::now();
        machine.freeze().await?;
        let done = meanwhile().await?;
        self.was_suspended(instance, began.elapsed())?;
        machine.thaw()?;
        Ok(done)
    }

    /// Sets the machine's wall clock ahead of ours by so many seconds.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set_wall(&self, instance: &Instance, ahead_s: i64) -> Result<()> {
        self.put(&self.path(instance), WALL_AT, ahead_s * 1_000_000_000)
    }

    fn env(&self, clocks: &Path) -> [String; 2] {
        [&self.library, clocks].map(|path| path.display().to_string())
    }

    fn path(&self, instance: &Instance) -> PathBuf {
        self.dir.join(instance.name())
    }

    fn open(&self, path: &Path) -> Result<File> {
        let opened = File::options().read(true).write(true).open(path);
        opened.map_err(Error::io(format!("open {}", path.display())))
    }

    fn put(&self, path: &Path, at: u64, ns: i64) -> Result<()> {
        let written = self.open(path)?.write_all_at(&ns.to_le_bytes(), at);
        written.map_err(Error::io(format!("write {}", path.display())))
    }
}

/// What a world calls the instances of its first replica set.
fn name_of(index: usize) -> String {
    format!("a{index}")
}
