//! Which process the instance is, proven before that process may be killed.
//!
//! | proof | what it shows |
//! | --- | --- |
//! | the kernel has the process at the other end of the connection (`process/owner.rs`) | who answers |
//! | the process shows a name that only it can give itself | that the instance's code runs there |

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::clock;
use crate::decide::observed::Probe;
use crate::errors::with_causes;
use crate::process::{Process, owner};
use crate::tarantool::guard::{Guard, GuardError};

/// A look at the kernel's tables takes milliseconds, on a host with hundreds of thousands of connections a good part of a second.
const PROOF_PATIENCE: Duration = Duration::from_secs(1);

/// No name of a thread is longer (prctl(2), `PR_SET_NAME`).
const NAME_MAX: usize = 15;

/// The process behind the guard, if it can be seen and proves to be that process. The instance is asked once more, so
/// that the process's id is known not to be another's.
pub(super) async fn find_process(
    guard: &Guard,
    probe: Probe,
) -> Result<(Result<Process, String>, Probe), GuardError> {
    match Process::of(&probe) {
        Ok(process) => {
            let proven = match holds_far_end(guard, &process).await {
                Ok(()) => prove(guard, &process).await,
                Err(why) => Err(why),
            };
            let answer = guard.probe().await?;
            Ok((proven.map(|()| process), answer.probe))
        }
        Err(error) => Ok((Err(with_causes(&error)), probe)),
    }
}

/// Whether the kernel has that process at the other end of the guard's connection. A relay to a real instance would pass the
/// proof by a name; this it does not pass.
async fn holds_far_end(guard: &Guard, process: &Process) -> Result<(), String> {
    let pid = process.pid();
    let far_end = guard.connection().far_end().map_err(|error| {
        format!(
            "process {pid} does not prove to be the instance: its socket cannot be read: {error}"
        )
    })?;
    // The tables of a busy host take their time.
    let check = timeout(
        PROOF_PATIENCE,
        spawn_blocking(move || owner::check(pid, far_end)),
    );
    match check.await {
        // It is of this process only if the process has not ended meanwhile.
        Ok(Ok(Ok(()))) => match process.death() {
            None => Ok(()),
            Some(death) => Err(death),
        },
        Ok(Ok(Err(error))) => Err(with_causes(&error)),
        Ok(Err(error)) => Err(with_causes(&error)),
        Err(_) => Err(format!(
            "process {pid} does not prove to be the instance: looking at its socket takes more than {PROOF_PATIENCE:?}"
        )),
    }
}

/// Whatever server answers at the instance's address names the process that may be killed. So it has to show that it is
/// that process: by a name that nobody can guess, and that only the process itself can give its main thread.
async fn prove(guard: &Guard, process: &Process) -> Result<(), String> {
    let id = clock::random_id().map_err(|error| format!("no randomness: {error}"))?;
    let name: String = format!("tarsec-{id}").chars().take(NAME_MAX).collect();
    let shown = match guard.show_name(&name).await {
        Ok(()) => process.name().map_err(|error| error.to_string()),
        Err(error) => Err(with_causes(&error)),
    };
    // Should that fail, the instance takes its own name back by itself.
    let _ = guard.hide_name().await;
    let pid = process.pid();
    match shown {
        Ok(shown) if shown == name => Ok(()),
        Ok(shown) => Err(format!(
            "the instance says that it is process {pid}, and does not bear the name that it was to show there: that is {shown:?}"
        )),
        Err(why) => Err(format!(
            "process {pid} does not prove to be the instance: {why}"
        )),
    }
}
