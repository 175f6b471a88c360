//! The operator's commands. They talk to Consul alone, so they work from anywhere; what they order, the agents do.
//!
//! | file | what it is |
//! | --- | --- |
//! | `help`, `outcome` | what the commands are, what their exit codes mean |
//! | `sorted`, `view`, `notes` | the keys of a cluster → what an operator wants to know; pure |
//! | `labels` | names of which no two are alike; pure |
//! | `screen`, `words` | views as text of 80 columns; pure |
//! | `reader` | Consul → views, with the signs of life that only looking for a while can show |
//! | `desk` | which replica set is meant, questions and answers |
//! | `status`, `switchover`, `pause`, `declare` | the commands |

mod agents;
mod declare;
mod desk;
pub mod help;
mod labels;
mod notes;
pub mod outcome;
mod past;
mod pause;
mod reader;
mod role;
mod screen;
mod sorted;
mod status;
mod switchover;
#[cfg(test)]
mod toys;
mod view;
pub(crate) mod words;

use std::time::Duration;

use crate::cli::{Order, ResumeArgs};
use crate::config::OperatorConfig;
use crate::consul::{Consul, ConsulError};
use crate::errors::chain;
use desk::Desk;
pub use desk::Terminal;
use outcome::Outcome;
use reader::Reader;
pub use screen::Paper;

/// The deadline of each request to Consul; an operator at a terminal would rather be told than wait longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a command did not do what it was asked to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Ended {
    outcome: Outcome,
    why: String,
}

impl Ended {
    fn new(outcome: Outcome, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { outcome, why }
    }
}

impl From<ConsulError> for Ended {
    fn from(error: ConsulError) -> Self {
        Self::new(Outcome::Failed, chain(&error))
    }
}

/// Carries out a command: what came of it goes to the terminal, and its kind comes back.
pub async fn run(order: Order, config: OperatorConfig, terminal: Terminal<'_>) -> Outcome {
    let consul = match Consul::new(&config.consul, REQUEST_TIMEOUT) {
        Ok(consul) => consul,
        Err(error) => return terminal.complain(&Ended::new(Outcome::Usage, chain(&error))),
    };
    let mut desk = Desk {
        reader: Reader::new(consul.clone(), &config),
        consul,
        config,
        terminal,
    };
    let ended = match order {
        Order::Status(args) => status::status(&mut desk, &args).await,
        Order::History(args) => status::history(&mut desk, &args).await,
        Order::Switchover(args) => switchover::run(&mut desk, &args).await,
        Order::Pause(args) => pause::pause(&mut desk, &args).await,
        Order::Resume(args) => resume(&mut desk, &args).await,
    };
    match ended {
        Ok(outcome) => outcome,
        Err(ended) => desk.terminal.complain(&ended),
    }
}

async fn resume(desk: &mut Desk<'_>, args: &ResumeArgs) -> Result<Outcome, Ended> {
    if args.master_is_down {
        declare::run(desk, args).await
    } else {
        pause::resume(desk, args).await
    }
}
