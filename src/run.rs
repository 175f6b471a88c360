//! Which agent runs beside the instance: one that runs for the lock, or that of a vshard router, which takes none.

use std::sync::Arc;

use tracing::{error, info, warn};

use crate::agent::{self, End};
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::errors::with_causes;
use crate::exit::Exit;
use crate::exposure;
use crate::http::{self, HttpError};
use crate::logging::Output;
use crate::router;
use crate::setup::Begin;

/// Runs the agent until it is asked to stop or has to.
pub async fn run(config: Config, output: Output) -> Exit {
    for exposure in exposure::of_agent(&config) {
        warn!(what = %exposure, "a secret or the way to Consul lies open to others");
    }
    let config = Arc::new(config);
    let clock = Clock::start();
    let display = match http::start(&config, clock) {
        Ok(display) => display,
        Err(cause) => {
            error!(
                error = with_causes(&cause),
                "cannot answer checks over HTTP"
            );
            return match cause {
                HttpError::Tls(_) => Exit::Settings,
                HttpError::Thread { .. } => Exit::Internal,
            };
        }
    };
    let begin = Begin {
        clock,
        output,
        display,
    };
    if config.vshard.role == Role::Router {
        return router::run(config, begin).await;
    }
    match agent::run(&config, begin.clone()).await {
        End::Exit(exit) => exit,
        End::Router => {
            info!("the instance is a vshard router: its agent takes no lock");
            router::run(config, begin).await
        }
    }
}
