//! `tarsec switchover`: writes what is asked for, and waits for what the agents make of it.

use std::time::Duration;

use tokio::time::sleep;

use super::context::{Context, operator};
use super::outcome::{Ended, Outcome};
use super::view::{SetState, SetView};
use super::words::{self, span};
use crate::cli::SwitchoverArgs;
use crate::clock;
use crate::consul::{LockView, LockWatch};
use crate::decide::board::{self, Switchover, SwitchoverState};
use crate::decide::timing::{Tick, moment_ms};
use crate::errors::with_causes;
use crate::keys::{ReplicaSetKeys, json_bytes};

/// A master's agent watches the key, so it takes notice within moments.
const NOTICE: Duration = Duration::from_secs(5);
/// The time that a successor needs, beside the target's time to catch up and a lease.
const SUCCESSION: Duration = Duration::from_secs(10);
/// An older request has been forgotten by every agent and operator who knew it.
const FORGOTTEN_MS: u64 = 300_000;
/// How long one look at the key waits for a change.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(
    context: &mut Context<'_>,
    args: &SwitchoverArgs,
) -> Result<Outcome, Ended> {
    let view = context.look().await?;
    let set = view.choose(args.replicaset.as_deref())?;
    let target = check(set, args, view.at_ms)?;
    let to = match &target {
        Some((_, name)) => name.clone(),
        None => "the best replica".to_owned(),
    };
    let from = set.holder_name();
    let uuid = &set.replicaset;
    context.terminal.ask(
        &format!(
            "The master of replica set {uuid} moves from {from} to {to}. Nothing can be written meanwhile; should the \
             target not catch up within {}, {from} stays master.",
            span(args.catch_up)
        ),
        args.yes,
    )?;
    let keys = context.config.keys().replicaset(uuid);
    let request = request(args, target.map(|(uuid, _)| uuid))?;
    let index = write(context, &keys.switchover(), set.switchover_index, &request).await?;
    context
        .terminal
        .say(&format!("asked {from} to hand over to {to}"))?;
    if args.no_wait {
        return Ok(Outcome::Done);
    }
    let lease = set.lease().unwrap_or_default();
    let now = context.reader.now();
    let wait = Wait {
        notice_by: now + NOTICE,
        end_by: now + NOTICE + args.catch_up + lease + SUCCESSION,
        index,
        request,
        running: false,
    };
    let last = wait.end(context, &keys).await?;
    report(context, set, last).await
}

/// Refuses an order that makes no sense; the agents know better about the rest. Returns the target's UUID and name, if
/// there is a target.
fn check(
    set: &SetView,
    args: &SwitchoverArgs,
    now_ms: u64,
) -> Result<Option<(String, String)>, Ended> {
    match set.state {
        SetState::Master | SetState::Silent => {}
        SetState::None | SetState::Promoting | SetState::Unreadable => {
            let why = set.notes.first().map_or("", String::as_str);
            let why = format!("there is no master to hand over: {why}");
            return Err(Ended::new(Outcome::NoMaster, why));
        }
    }
    if let Some(other) = &set.switchover
        && matches!(
            other.state,
            SwitchoverState::Requested | SwitchoverState::Running
        )
        && now_ms.saturating_sub(moment_ms(other.at_ms, other.at)) < FORGOTTEN_MS
    {
        let why = format!(
            "a switchover that {} asked for at {} is under way",
            other.by,
            words::moment(moment_ms(other.at_ms, other.at))
        );
        return Err(Ended::new(Outcome::Refused, why));
    }
    let Some(name) = &args.to else {
        return Ok(None);
    };
    let member = set.member(name)?;
    let is_holder = set
        .holder
        .as_ref()
        .is_some_and(|holder| holder.instance == member.instance);
    if is_holder {
        let why = format!("{} is the master already", member.name);
        return Err(Ended::new(Outcome::Refused, why));
    }
    Ok(Some((member.instance.clone(), member.name.clone())))
}

fn request(args: &SwitchoverArgs, target: Option<String>) -> Result<Switchover, Ended> {
    let id = clock::random_id()
        .map_err(|error| Ended::new(Outcome::Failed, format!("no randomness: {error}")))?;
    let at_ms = clock::wall_ms();
    Ok(Switchover {
        v: board::VERSION,
        id,
        target,
        by: operator(),
        at: at_ms / 1000,
        at_ms,
        catch_up_ms: u64::try_from(args.catch_up.as_millis()).unwrap_or(u64::MAX),
        state: SwitchoverState::Requested,
        why: String::new(),
    })
}

/// Writes the request if nobody has asked for another since; its key's index.
async fn write(
    context: &Context<'_>,
    key: &str,
    index: u64,
    request: &Switchover,
) -> Result<u64, Ended> {
    let bytes = json_bytes(request);
    let written = match context.consul.put_key_if(key, index, &bytes).await {
        Ok(written) => written,
        Err(error) if error.is_denied() => return Err(error.into()),
        // The reply is lost, the request may stand there.
        Err(error) => {
            let found = context.consul.read_key(key).await.ok();
            let own = found.and_then(|view| own(&view, request));
            match own {
                Some((index, _)) => Some(index),
                None => return Err(error.into()),
            }
        }
    };
    written.ok_or_else(|| {
        let why = "somebody else has asked for a switchover in this moment, see tarsec status";
        Ended::new(Outcome::Refused, why)
    })
}

/// The request as it stands there now, with its index.
fn own(view: &LockView, request: &Switchover) -> Option<(u64, Switchover)> {
    let key = view.key.as_ref()?;
    let found: Switchover = board::parse(&key.value)?;
    (found.id == request.id).then_some((key.modify_index, found))
}

/// What is waited for.
struct Wait {
    notice_by: Tick,
    end_by: Tick,
    index: u64,
    request: Switchover,
    running: bool,
}

impl Wait {
    /// The request's last state. One that nobody takes notice of is withdrawn, so that nobody does later, when it is
    /// no longer expected.
    async fn end(
        mut self,
        context: &mut Context<'_>,
        keys: &ReplicaSetKeys,
    ) -> Result<Switchover, Ended> {
        let key = keys.switchover();
        let mut watch = LockWatch::new(&key, LOOK);
        loop {
            let pitch = sleep(LOOK);
            let failed = match watch.next(&context.consul).await {
                Ok(view) => {
                    if let Some(ended) = self.see(context, &view)? {
                        return Ok(ended);
                    }
                    None
                }
                // Anything on its way may have ended the question: the next one is not held, and decides.
                Err(_) if watch.was_held() => {
                    pitch.await;
                    continue;
                }
                Err(error) => {
                    let why = with_causes(&error);
                    sleep(LOOK).await;
                    Some(why)
                }
            };
            let now = context.reader.now();
            match failed {
                Some(why) if now >= self.end_by => {
                    let why = format!("{why}; what became of the switchover is unknown");
                    return Err(Ended::new(Outcome::Failed, why));
                }
                None if now >= self.end_by => {
                    let why = "the switchover has not ended in time, see tarsec status --watch";
                    return Err(Ended::new(Outcome::NotInTime, why));
                }
                None if now >= self.notice_by && !self.running => {
                    if self.withdraw(context, &key).await? {
                        return Err(unnoticed(context, keys.uuid()).await);
                    }
                }
                Some(_) | None => {}
            }
        }
    }

    fn see(
        &mut self,
        context: &mut Context<'_>,
        view: &LockView,
    ) -> Result<Option<Switchover>, Ended> {
        let Some((index, found)) = own(view, &self.request) else {
            let why = "the request has been overwritten, what became of it is unknown";
            return Err(Ended::new(Outcome::NotInTime, why));
        };
        self.index = index;
        match found.state {
            SwitchoverState::Requested => Ok(None),
            SwitchoverState::Running => {
                if !self.running {
                    self.running = true;
                    context.terminal.say("the master has begun")?;
                }
                Ok(None)
            }
            SwitchoverState::Done
            | SwitchoverState::Refused
            | SwitchoverState::Undone
            | SwitchoverState::None => Ok(Some(found)),
        }
    }

    /// Whether it is withdrawn; otherwise somebody has taken notice of it in the last moment.
    async fn withdraw(&self, context: &Context<'_>, key: &str) -> Result<bool, Ended> {
        let withdrawn = Switchover {
            state: SwitchoverState::Refused,
            why: "withdrawn, as nobody took notice".to_owned(),
            ..self.request.clone()
        };
        let bytes = json_bytes(&withdrawn);
        let written = context.consul.put_key_if(key, self.index, &bytes).await;
        Ok(written?.is_some())
    }
}

/// Why nobody took notice, as far as can be seen from here.
async fn unnoticed(context: &mut Context<'_>, replicaset: &str) -> Ended {
    let looked = context.reader.look().await.ok();
    let view = match looked {
        Some(view) => context.reader.wait_for_signs(view, |_| true).await.ok(),
        None => None,
    };
    let set = view.as_ref().and_then(|view| view.set(replicaset));
    let why = why_unnoticed(set);
    let why = format!("nobody took notice, so the request was withdrawn: {why}");
    Ended::new(Outcome::Refused, why)
}

fn why_unnoticed(set: Option<&SetView>) -> &str {
    let note = set.and_then(|set| {
        // A fault of another member keeps no master's agent from taking notice.
        let concerns =
            |note: &&String| set.state != SetState::Master || note.contains(set.holder_name());
        set.notes.iter().find(concerns)
    });
    note.map_or(
        "the master's agent refreshes its lock, but is busy or of a version without switchovers",
        String::as_str,
    )
}

async fn report(
    context: &mut Context<'_>,
    before: &SetView,
    last: Switchover,
) -> Result<Outcome, Ended> {
    let from = before.holder_name();
    match last.state {
        SwitchoverState::Done => {
            let view = context.reader.look().await?;
            let after = view.set(&before.replicaset);
            let said = match after.filter(|set| set.state == SetState::Master) {
                Some(set) => format!(
                    "done: {} is master, term {}",
                    set.holder_name(),
                    set.term.unwrap_or_default()
                ),
                None => "done".to_owned(),
            };
            context.terminal.say(&said)?;
            Ok(Outcome::Done)
        }
        SwitchoverState::Undone => {
            let why = format!("undone, {from} is master as before: {}", last.why);
            Err(Ended::new(Outcome::Undone, why))
        }
        SwitchoverState::Refused
        | SwitchoverState::Requested
        | SwitchoverState::Running
        | SwitchoverState::None => {
            let why = format!("refused, {from} is master as before: {}", last.why);
            Err(Ended::new(Outcome::Refused, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::toys::{Keys, member, name};
    use crate::decide::board::Member;

    #[test]
    fn a_request_goes_unnoticed_for_what_concerns_the_master_alone() {
        let why = |unwell: u64| {
            let critical = Member {
                health: "critical".to_owned(),
                ..member(unwell)
            };
            let view = Keys::healthy().member(&critical).view();
            assert!(!view.replicasets[0].notes.is_empty());
            why_unnoticed(view.replicasets.first()).to_owned()
        };
        assert_eq!(why(1), format!("{} is critical", name(1)));
        assert!(why(3).starts_with("the master's agent refreshes its lock"));
    }
}
