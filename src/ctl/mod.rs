//! The operator's commands. They talk to Consul alone, so they work from anywhere; what they order, the agents do.
//!
//! | file | what it is |
//! | --- | --- |
//! | `help`, `outcome` | what the commands are, what their exit codes mean |
//! | `view` | what an operator wants to know |
//! | `sorted`, `build`, `notes` | the keys of a cluster → views; pure |
//! | `agents` | whether the agents live that the views are told by |
//! | `labels` | names of which no two are alike; pure |
//! | `screen`, `past`, `words`, `paper` | views as text of 80 columns; pure |
//! | `reader` | Consul → views, with the signs of life that only looking for a while can show |
//! | `terminal` | what is said and asked |
//! | `choose` | which replica set and which member are meant |
//! | `context` | what every command works with |
//! | `status`, `switchover`, `pause`, `declare`, `forget` | the commands |

mod agents;
mod build;
mod choose;
mod context;
mod declare;
mod forget;
pub mod help;
mod labels;
mod notes;
pub mod outcome;
mod paper;
mod past;
mod pause;
mod reader;
mod screen;
mod sorted;
mod status;
mod switchover;
mod terminal;
#[cfg(test)]
mod toys;
mod view;
pub(crate) mod words;

use std::time::Duration;

use crate::cli::{Order, ResumeArgs};
use crate::config::OperatorConfig;
use crate::consul::Consul;
use crate::errors::with_causes;
use crate::exposure;
use context::Context;
use outcome::{Ended, Outcome};
pub use paper::Paper;
use reader::Reader;
pub use terminal::Terminal;

/// The deadline of each request to Consul; an operator at a terminal would rather be told than wait longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Carries out a command: what came of it goes to the terminal, and its kind comes back.
pub async fn run(order: Order, config: OperatorConfig, terminal: Terminal<'_>) -> Outcome {
    let consul = match Consul::new(&config.consul, REQUEST_TIMEOUT) {
        Ok(consul) => consul,
        Err(error) => return terminal.complain(&Ended::new(Outcome::Usage, with_causes(&error))),
    };
    let mut context = Context {
        reader: Reader::new(consul.clone(), &config),
        consul,
        config,
        terminal,
    };
    for exposure in exposure::of_consul(&context.config.consul) {
        context.terminal.progress(&format!("warning: {exposure}"));
    }
    let ended = match order {
        Order::Status(args) => status::status(&mut context, &args).await,
        Order::History(args) => status::history(&mut context, &args).await,
        Order::Switchover(args) => switchover::run(&mut context, &args).await,
        Order::Pause(args) => pause::pause(&mut context, &args).await,
        Order::Resume(args) => resume(&mut context, &args).await,
        Order::Forget(args) => forget::run(&mut context, &args).await,
    };
    match ended {
        Ok(outcome) => outcome,
        Err(ended) => context.terminal.complain(&ended),
    }
}

async fn resume(context: &mut Context<'_>, args: &ResumeArgs) -> Result<Outcome, Ended> {
    if args.master_is_down {
        declare::run(context, args).await
    } else {
        pause::resume(context, args).await
    }
}
