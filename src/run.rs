//! Which agent runs beside the instance: one that runs for the lock, or that of a vshard router, which takes none.

use std::sync::Arc;

use tracing::{info, warn};

use crate::agent::{self, End};
use crate::config::{Config, Role};
use crate::exit::Exit;
use crate::exposure;
use crate::logging::Output;
use crate::router;

/// Runs the agent until it is asked to stop or has to.
pub async fn run(config: Config, output: Output) -> Exit {
    for exposure in exposure::of_agent(&config) {
        warn!(what = %exposure, "a secret or the way to Consul lies open to others");
    }
    let config = Arc::new(config);
    if config.vshard.role == Role::Router {
        return router::run(config, output).await;
    }
    match agent::run(&config, output.clone()).await {
        End::Exit(exit) => exit,
        End::Router => {
            info!("the instance is a vshard router: its agent takes no lock");
            router::run(config, output).await
        }
    }
}
