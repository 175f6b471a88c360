//! Passwords, the token and certificates: read from their files at the start, and again whenever a server refuses them.
//! This is the one place that knows when.
//!
//! ```text
//!  a refusal ──▶ refused() ──▶ a thread reads the files ──▶ get() has what is new, changes() says so
//!                    └ nobody waits; one thread at a time, PITCH between two readings
//! ```

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::config::error::SettingError;
use crate::errors::with_causes;

/// The pause between the end of a reading and the next. A secret that stays refused is tried several times a second,
/// and its files are read no more often than that; a secret that is written a moment after its refusal is there within
/// the shortest lease.
const PITCH: Duration = Duration::from_secs(2);
/// After this a reading is said to hang. A file may be on a server that is gone; the reading goes on, and nobody waits
/// for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something made of files that may change; clones share it.
pub(crate) struct Renewable<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    current: watch::Sender<Arc<T>>,
    /// The files that are read again; `None`: the value was given, and stays.
    source: Option<Source<T>>,
    /// A reading is under way or was a moment ago.
    is_busy: AtomicBool,
    /// What was said last, so that it is said once.
    complaint: Mutex<Option<String>>,
}

struct Source<T> {
    /// The variables that name the files.
    names: String,
    read: Read<T>,
}

type Read<T> = Box<dyn Fn(&T) -> Reading<T> + Send + Sync>;

/// What a look at the files brought.
pub(crate) struct Reading<T> {
    /// The new value where something has changed, and the variables that name the changed files.
    pub(crate) changed: Option<(T, String)>,
    /// What cannot be read or used; the value before is kept for it.
    pub(crate) complaints: Vec<String>,
}

impl<T> Clone for Renewable<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<T: Send + Sync + 'static> Renewable<T> {
    /// A value that stays what it is.
    pub(crate) fn fixed(value: T) -> Self {
        Self::with(value, None)
    }

    /// `read` looks at the files that the variables `names` name and compares. It may block.
    pub(crate) fn renewed_by(
        value: T,
        names: String,
        read: impl Fn(&T) -> Reading<T> + Send + Sync + 'static,
    ) -> Self {
        let read = Box::new(read);
        Self::with(value, Some(Source { names, read }))
    }

    fn with(value: T, source: Option<Source<T>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                current: watch::Sender::new(Arc::new(value)),
                source,
                is_busy: AtomicBool::new(false),
                complaint: Mutex::default(),
            }),
        }
    }

    /// The value as last read.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.inner.current.borrow())
    }

    /// Tells a task that awaits it of each new value.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<T>> {
        self.inner.current.subscribe()
    }

    /// A server does not accept the value: its files are read again, unless that has just been done. Returns at once.
    pub(crate) fn refused(&self) {
        self.may_have_changed();
    }

    /// The same where nobody would say that the value is refused.
    pub(crate) fn may_have_changed(&self) {
        let inner = &self.inner;
        if inner.source.is_none() || inner.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            Inner::read_again(&inner).await;
            sleep(PITCH).await;
            inner.is_busy.store(false, Ordering::Release);
        });
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    async fn read_again(inner: &Arc<Self>) {
        let Some(source) = &inner.source else {
            return;
        };
        let reader = Arc::clone(inner);
        let mut reading = spawn_blocking(move || {
            let current = Arc::clone(&reader.current.borrow());
            reader.source.as_ref().map(|it| (it.read)(&current))
        });
        let read = match timeout(PATIENCE, &mut reading).await {
            Ok(read) => read,
            Err(_) => {
                let names = &source.names;
                inner.complain(&[format!(
                    "reading what {names} names takes more than {PATIENCE:?}"
                )]);
                // However long that takes: another thread would hang as well.
                reading.await
            }
        };
        match read {
            Ok(Some(Reading {
                changed,
                complaints,
            })) => {
                if let Some((value, settings)) = changed {
                    inner.current.send_replace(Arc::new(value));
                    info!(settings, "a changed secret was taken");
                }
                inner.complain(&complaints);
            }
            Ok(None) => {}
            Err(error) => inner.complain(&[with_causes(&error)]),
        }
    }

    fn complain(&self, complaints: &[String]) {
        let why = (!complaints.is_empty()).then(|| complaints.join("; "));
        // No panic can leave it half-changed.
        let mut known = self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *known == why {
            return;
        }
        if let Some(why) = &why {
            warn!(why, "a secret cannot be read again: the one before is kept");
        }
        *known = why;
    }
}

/// A password or a token: given for good, or what stands in a file. Clones share it.
#[derive(Clone)]
pub struct Secret {
    value: Renewable<String>,
    file: Option<Arc<SecretFile>>,
}

/// A check of what was found in a file.
pub(crate) type Check = fn(&SecretFile, &str) -> Result<(), SettingError>;

/// The file that a variable names.
pub(crate) struct SecretFile {
    pub(crate) variable: &'static str,
    pub(crate) path: PathBuf,
    /// A check beyond that the file holds something.
    pub(crate) check: Check,
}

impl SecretFile {
    /// The file's content without the newline at its end. May block.
    fn read(&self) -> Result<String, SettingError> {
        let (name, path) = (self.variable, self.path.clone());
        let content = match fs::read_to_string(&path) {
            Ok(content) => content,
            Err(source) => return Err(SettingError::Unreadable { name, path, source }),
        };
        let secret = content.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(SettingError::EmptyFile { name, path });
        }
        (self.check)(self, secret)?;
        Ok(secret.to_owned())
    }
}

impl Secret {
    /// The secret that the file holds now, and the secrets that it will hold.
    ///
    /// # Errors
    /// It cannot be read, is empty, or fails the check.
    pub(crate) fn in_file(
        variable: &'static str,
        path: &Path,
        check: Check,
    ) -> Result<Self, SettingError> {
        let path = path.to_owned();
        let file = Arc::new(SecretFile {
            variable,
            path,
            check,
        });
        let reader = Arc::clone(&file);
        let value =
            Renewable::renewed_by(file.read()?, variable.to_owned(), move |known| match reader
                .read()
            {
                Ok(found) => Reading {
                    changed: (found != *known).then(|| (found, variable.to_owned())),
                    complaints: Vec::new(),
                },
                Err(error) => Reading {
                    changed: None,
                    complaints: vec![with_causes(&error)],
                },
            });
        Ok(Self {
            value,
            file: Some(file),
        })
    }

    /// The secret as last read.
    #[must_use]
    pub fn get(&self) -> Arc<String> {
        self.value.get()
    }

    /// A server does not accept the secret: its file, if it has one, is read again, unless that has just been done.
    /// Returns at once.
    pub(crate) fn refused(&self) {
        self.value.refused();
    }

    /// Tells a task that awaits it of each new secret.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<String>> {
        self.value.changes()
    }

    /// The variable that names its file, if it has one.
    pub(crate) fn file_variable(&self) -> Option<&'static str> {
        Some(self.file.as_ref()?.variable)
    }

    /// The variable that names its file, and the file, if it has one.
    pub(crate) fn file(&self) -> Option<(&'static str, &Path)> {
        let file = self.file.as_ref()?;
        Some((file.variable, &file.path))
    }

    /// The variable that names its file, and what stands there now, for a caller that reads it together with other
    /// files. May block.
    pub(crate) fn read_file(&self) -> Option<(&'static str, Result<String, SettingError>)> {
        let file = self.file.as_ref()?;
        Some((file.variable, file.read()))
    }
}

impl<S: Into<String>> From<S> for Secret {
    /// A secret that is given for good.
    fn from(value: S) -> Self {
        Self {
            value: Renewable::fixed(value.into()),
            file: None,
        }
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::from("")
    }
}

impl fmt::Debug for Secret {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
