//! stdout and stderr, each written to by a thread of its own: a reader, whether it reads or not, holds nobody up.
//!
//! ```text
//!  agent ── put(line) ──▶ queue, bounded in bytes ──▶ thread ── write(2) ──▶ descriptor
//! ```
//!
//! Where a line does not fit, the oldest ones are dropped. Their number is written where they are missing.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

/// The way to one descriptor; clones share it.
#[derive(Clone)]
pub struct Outlet {
    shared: Arc<Shared>,
}

struct Shared {
    bound: usize,
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// The length of `lines` together.
    bytes: usize,
    /// The thread has a line in its hands.
    is_writing: bool,
    /// Lines that nobody will see, ever since the start.
    lost: u64,
    /// Lost lines that are missing in front of `lines`, of which the reader has not been told.
    untold: u64,
}

/// What stands where this many lines are missing.
pub type Note = Box<dyn Fn(u64) -> Vec<u8> + Send>;

impl Outlet {
    /// Starts the thread that writes. More than `bound` bytes wait for it only where one line alone is longer.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn open(
        name: &str,
        bound: usize,
        to: impl Write + Send + 'static,
        note: Note,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            bound,
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            to,
            note,
            torn: false,
        };
        // It ends with the process.
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// Takes a line, or several that belong together. Never waits for the reader.
    pub fn put(&self, line: Vec<u8>) {
        let mut queue = self.shared.lock();
        while queue.bytes + line.len() > self.shared.bound {
            let Some(oldest) = queue.lines.pop_front() else {
                break;
            };
            queue.bytes -= oldest.len();
            queue.lose(1);
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// How many lines nobody will see: they did not fit, or the descriptor did not take them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Waits until everything is written, for so long at most; says whether it is.
    pub fn drain(&self, patience: Duration) -> bool {
        let queue = self.shared.lock();
        let waiting = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        match self
            .shared
            .emptied
            .wait_timeout_while(queue, patience, waiting)
        {
            Ok((_, waited)) => !waited.timed_out(),
            Err(_) => false,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No panic can leave the queue half-changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn lose(&mut self, lines: u64) {
        self.lost = self.lost.saturating_add(lines);
        self.untold = self.untold.saturating_add(lines);
    }
}

/// Each call writes a line of its own.
impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes.to_vec());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<W> {
    shared: Arc<Shared>,
    to: W,
    note: Note,
    /// The last write left a part of a line behind.
    torn: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        loop {
            let (untold, line) = self.next();
            if untold > 0 && self.write(&(self.note)(untold)) {
                self.shared.lock().untold -= untold;
            }
            let written = self.write(&line);
            let mut queue = self.shared.lock();
            queue.is_writing = false;
            if !written {
                queue.lose(1);
            }
            if queue.lines.is_empty() {
                self.shared.emptied.notify_all();
            }
        }
    }

    fn next(&self) -> (u64, Vec<u8>) {
        let mut queue = self.shared.lock();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                queue.is_writing = true;
                return (queue.untold, line);
            }
            queue = self
                .shared
                .filled
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether all of it was taken. A full disk takes a part of a line: the next one begins on a line of its own.
    fn write(&mut self, line: &[u8]) -> bool {
        if self.torn && self.to.write_all(b"\n").is_err() {
            return false;
        }
        self.torn = false;
        let mut rest = line;
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => break,
                Ok(taken) => rest = &rest[taken..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.torn = !rest.is_empty() && rest.len() < line.len();
        rest.is_empty()
    }
}

/// A descriptor of the process, past the locks and buffers that the standard library has for it.
#[derive(Debug, Clone)]
pub(crate) struct Descriptor(pub(crate) BorrowedFd<'static>);

impl Write for Descriptor {
    /// Waits also where somebody has made the pipe non-blocking, which it then is for every process that shares it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(self.0, bytes) {
                Err(rustix::io::Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                done => return done.map_err(io::Error::from),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader, Read};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// For what takes microseconds on an idle machine.
    const SOON: Duration = Duration::from_secs(10);

    fn note() -> Note {
        Box::new(|lost| format!("{lost} lost\n").into_bytes())
    }

    /// A pipe that is full, behind an outlet whose queue has room for so much.
    fn unread(bound: usize) -> (Outlet, PipeReader, usize) {
        let (reader, mut writer) = io::pipe().unwrap();
        let size = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
        writer.write_all(&vec![b'\n'; size]).unwrap();
        let outlet = Outlet::open("test", bound, writer, note()).unwrap();
        (outlet, reader, size)
    }

    fn put(outlet: &Outlet, line: &str) {
        outlet.put(line.as_bytes().to_vec());
    }

    /// Waits until the thread holds a line, so that what is put from now on stays in the queue.
    fn wait_until_stuck(outlet: &Outlet) {
        while !outlet.shared.lock().lines.is_empty() {
            thread::yield_now();
        }
    }

    #[test]
    fn what_nobody_reads_is_dropped_from_its_old_end_and_counted_where_it_is_missing() {
        let (outlet, mut reader, filler) = unread(20);
        put(&outlet, "in hand\n");
        wait_until_stuck(&outlet);
        for line in 0..100 {
            put(&outlet, &format!("line {line:03}\n"));
        }
        assert_eq!(outlet.lost(), 98);
        assert!(!outlet.drain(Duration::from_millis(10)), "nobody reads");
        reader.read_exact(&mut vec![0; filler]).unwrap();
        let read: Vec<String> = BufReader::new(reader)
            .lines()
            .take(4)
            .map(Result::unwrap)
            .collect();
        assert_eq!(read, ["in hand", "98 lost", "line 098", "line 099"]);
        assert!(outlet.drain(SOON), "all is read");
    }

    #[test]
    fn a_line_longer_than_the_queue_is_written_alone() {
        let (reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::open("test", 4, writer, note()).unwrap();
        put(&outlet, "longer than four\n");
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        assert_eq!(line, "longer than four\n");
        assert_eq!(outlet.lost(), 0);
    }

    /// A disk that is full at times: then it takes three bytes of a line and no more.
    #[derive(Clone)]
    struct Disk {
        full: Arc<AtomicBool>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let is_full = self.full.load(Ordering::SeqCst);
            if is_full && bytes.len() < 9 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = if is_full { 3 } else { bytes.len() };
            self.taken.send(bytes[..taken].to_vec()).unwrap();
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_the_lines_it_did_not_take_and_half_a_line_ends_there() {
        let (taken, written) = mpsc::channel();
        let full = Arc::new(AtomicBool::new(true));
        let disk = Disk {
            full: Arc::clone(&full),
            taken,
        };
        let outlet = Outlet::open("test", 1000, disk, note()).unwrap();
        put(&outlet, "ten bytes\n");
        put(&outlet, "another\n");
        assert!(outlet.drain(SOON), "an error is no reason to wait");
        assert_eq!(outlet.lost(), 2);
        full.store(false, Ordering::SeqCst);
        put(&outlet, "room again\n");
        assert!(outlet.drain(SOON));
        let text: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "ten\n2 lost\nroom again\n"
        );
        assert_eq!(outlet.lost(), 2);
    }

    #[test]
    fn a_reader_that_is_gone_costs_the_lines_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let outlet = Outlet::open("test", 1000, writer, note()).unwrap();
        put(&outlet, "to nobody\n");
        assert!(outlet.drain(SOON));
        assert_eq!(outlet.lost(), 1);
    }
}
