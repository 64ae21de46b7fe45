//! Several servers over one store: each tells the others what it has committed, by way of a Redis. Where there is none,
//! or while it cannot be reached, the store is asked now and then.
//!
//! All of this is hints. What is lost on the way is noticed, by a number that each server counts up, and made up for by
//! asking the store; so Redis keeps nothing, and nothing depends on it.

mod peers;
mod poll;
mod redis;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::RandomSource;
use crate::config::FanoutConfig;
use crate::fanout::poll::Polling;
use crate::fanout::redis::RedisFanout;
use crate::service::Service;

pub use redis::{FanoutError, try_out};

/// A fan-out that runs, until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// How long what was said last has to arrive at the others, when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts to tell other servers over the same store what the service does, and the service what they do.
pub fn start(config: &FanoutConfig, service: &Arc<Service>, random: &dyn RandomSource) -> Running {
    let polling = Arc::new(Polling::new(Arc::clone(service), config.poll_interval.get()));
    let mut run = [0; 8];
    random.fill(&mut run);
    let redis = config.url.clone().map(|url| {
        // From now on, so that nothing is missed while it connects for the first time.
        service.hints().outbox().open();
        service.metrics().fanout_connected(false);
        RedisFanout::new(url, u64::from_be_bytes(run), Arc::clone(service), Arc::clone(&polling))
    });
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(async move {
        polling.go_on(true);
        let told = async {
            match redis {
                Some(redis) => redis.run(stopping).await,
                None => stopped(stopping).await,
            }
        };
        tokio::select! {
            () = told => {}
            () = polling.run() => {}
        }
    });
    Running { stop, task }
}

/// Returns when it is to stop, also if nobody is left to say so.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
}

impl Running {
    /// Stops it, once the others have been told what was said last, if they can be told.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP_TIMEOUT, &mut self.task).await.is_err() {
            tracing::warn!("stopped before the other servers could be told everything");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
