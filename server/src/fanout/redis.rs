//! By way of a channel of Redis or Valkey, which tells whoever is connected and keeps nothing.
//!
//! A server hears its own words too: so it knows that both ways are open, and not only that nothing comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind};
use sync_core::model::Random as _;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::causes::with_causes;
use crate::clock::{Draw, SystemRandom};
use crate::config::FanoutUrl;
use crate::fanout::peers::{BEAT_EVERY, Heard, Peers};
use crate::fanout::poll::Polling;
use crate::fanout::stopped;
use crate::fanout::wire::{self, Envelope};
use crate::metrics::MessageOutcome;
use crate::service::Service;
use crate::service::outbox::{Batch, Message};

/// Why the other servers cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum FanoutError {
    /// There is nobody, or somebody else.
    #[error("it cannot be reached")]
    Unreachable(#[source] RedisError),
    /// There is something else.
    #[error("what answers there is not a Redis")]
    Other,
    /// It takes too long.
    #[error("it does not answer in time (with `rediss` it has to speak TLS)")]
    Slow,
    /// The password.
    #[error("it does not take the user or the password, or asks for one")]
    SignIn(#[source] RedisError),
    /// Its rules.
    #[error("the user may not publish to the channel `{channel}` and subscribe to it (&{channel} +publish +subscribe)")]
    NotAllowed {
        /// Which channel.
        channel: String,
    },
    /// What is told there goes nowhere.
    #[error("what is published there does not come back")]
    Deaf,
    /// It has ended the connection.
    #[error("the connection was lost")]
    Lost,
    /// Anything else.
    #[error("it does not do what it is asked")]
    Failed(#[source] RedisError),
}

/// Tells the other servers what the service does, and the service what they do.
pub(super) struct RedisFanout {
    url: FanoutUrl,
    /// Names this run of the server.
    run: u64,
    /// Of what was said last.
    number: AtomicU64,
    service: Arc<Service>,
    polling: Arc<Polling>,
}

/// Connections that are open and subscribed.
struct Connected {
    publishing: MultiplexedConnection,
    /// Without it, the stream ends.
    _subscribing: PubSubSink,
    heard: PubSubStream,
}

/// For connecting, signing in and subscribing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For each answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// The first wait for the next try at most; it doubles.
const FIRST_WAIT_MS: u64 = 200;
/// The longest one.
const LONGEST_WAIT_MS: u64 = 10_000;

impl RedisFanout {
    pub(super) const fn new(url: FanoutUrl, run: u64, service: Arc<Service>, polling: Arc<Polling>) -> Self {
        Self { url, run, number: AtomicU64::new(0), service, polling }
    }

    /// Connects, again and again, until the server stops.
    pub(super) async fn run(&self, stopping: watch::Receiver<bool>) {
        let mut failures = 0;
        loop {
            let error = tokio::select! {
                biased;
                () = stopped(stopping.clone()) => return,
                connected = connect(&self.url) => match connected {
                    Ok(connected) => {
                        failures = 0;
                        match self.stay(connected, stopping.clone()).await {
                            Ok(()) => return,
                            Err(error) => error,
                        }
                    }
                    Err(error) => error,
                },
            };
            if failures == 0 {
                tracing::warn!(redis = %self.url, error = with_causes(&error),
                    "the other servers cannot be told what happens here, so the store is asked");
            } else {
                tracing::debug!(redis = %self.url, error = with_causes(&error), failures, "Redis is still not there");
            }
            let wait = Duration::from_millis(wait_ms(failures));
            failures += 1;
            if timeout(wait, stopped(stopping.clone())).await.is_ok() {
                return;
            }
        }
    }

    /// Tells and hears until the connection is lost. Without an error: the server stops.
    async fn stay(&self, connected: Connected, stopping: watch::Receiver<bool>) -> Result<(), FanoutError> {
        let Connected { publishing, _subscribing, heard } = connected;
        let told_all = async {
            stopped(stopping).await;
            self.service.hints().outbox().drained().await;
        };
        // The store is asked about what others said before this moment; what they say from now on is heard.
        self.polling.go_on(false);
        self.polling.catch_up();
        self.service.metrics().fanout_connected(true);
        tracing::info!(redis = %self.url, channel = self.url.channel(), "tells the other servers what happens here");
        let ended = tokio::select! {
            error = self.tell(publishing.clone()) => Err(error),
            error = self.hear(heard) => Err(error),
            () = told_all => self.publish(&mut publishing.clone(), Vec::new(), true).await,
        };
        self.service.metrics().fanout_connected(false);
        self.polling.go_on(true);
        ended
    }

    /// Tells the others what is said here, or that this server is there.
    async fn tell(&self, mut publishing: MultiplexedConnection) -> FanoutError {
        let outbox = self.service.hints().outbox();
        // The first beat says from which number on.
        let mut batch = None;
        loop {
            let messages = batch.as_ref().map_or(&[][..], Batch::messages);
            if let Err(error) = self.publish(&mut publishing, messages.to_vec(), false).await {
                self.service.metrics().told(MessageOutcome::Failed, messages.len());
                return error;
            }
            self.service.metrics().told(MessageOutcome::Published, messages.len());
            if let Some(batch) = batch.take() {
                batch.arrived();
            }
            batch = timeout(BEAT_EVERY, outbox.next()).await.ok();
        }
    }

    async fn publish(
        &self,
        publishing: &mut MultiplexedConnection,
        messages: Vec<Message>,
        is_last: bool,
    ) -> Result<(), FanoutError> {
        // If it fails, the same number is taken again: what was to be said then comes again too.
        let number = self.number.load(Ordering::Relaxed) + 1;
        let bytes = wire::encode(Envelope { run: self.run, number, messages, is_last });
        publish(publishing, self.url.channel(), &bytes).await?;
        self.number.store(number, Ordering::Relaxed);
        Ok(())
    }

    /// Hears what the others say.
    async fn hear(&self, mut heard: PubSubStream) -> FanoutError {
        let mut peers = Peers::new(self.run, Instant::now());
        let mut is_strange = false;
        let mut ticks = interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = heard.next() => {
                    let Some(message) = message else { return FanoutError::Lost };
                    match wire::decode(message.get_payload_bytes()) {
                        Ok(envelope) => self.take_in(&mut peers, envelope),
                        Err(error) => {
                            if !is_strange {
                                tracing::warn!(redis = %self.url, channel = self.url.channel(),
                                    error = with_causes(&error),
                                    "somebody says something else on the channel of the servers, or a newer server does");
                            }
                            is_strange = true;
                            self.service.metrics().told(MessageOutcome::Failed, 1);
                            self.polling.catch_up();
                        }
                    }
                }
                _ = ticks.tick() => {
                    let now = Instant::now();
                    if peers.forget_silent(now) {
                        tracing::info!("another server fell silent, so the store is asked what it has done last");
                        self.polling.catch_up();
                    }
                    if peers.is_deaf(now) {
                        return FanoutError::Deaf;
                    }
                }
            }
        }
    }

    fn take_in(&self, peers: &mut Peers, envelope: Envelope) {
        let Envelope { run, number, messages, is_last } = envelope;
        match peers.hear(run, number, Instant::now()) {
            Heard::Own => return,
            Heard::Next => {}
            Heard::AfterGap => {
                tracing::info!("something that another server said was lost, so the store is asked");
                self.polling.catch_up();
            }
        }
        self.service.metrics().told(MessageOutcome::Received, messages.len());
        for message in messages {
            match message {
                Message::Moved { dataset, epoch, sync_count } => {
                    self.service.moved_elsewhere(&dataset, epoch, sync_count);
                }
                // The store knows whether it is so, and to whom it leads.
                Message::Linked { source, target: _ } => self.polling.look_after(source),
                Message::Missed => self.polling.catch_up(),
            }
        }
        if is_last {
            peers.leave(run);
        }
    }
}

/// Looks whether the other servers could be told: connects, signs in, subscribes, publishes, and waits for that to come
/// back.
///
/// # Errors
/// Says what is wrong, without the password.
pub async fn try_out(url: &FanoutUrl) -> Result<(), FanoutError> {
    let mut connected = connect(url).await?;
    // As of a server that has nothing to say and stops: the others forget it at once.
    let word = wire::encode(Envelope { run: draw(), number: 0, messages: Vec::new(), is_last: true });
    publish(&mut connected.publishing, url.channel(), &word).await?;
    let comes_back = async {
        while let Some(message) = connected.heard.next().await {
            if message.get_payload_bytes() == word {
                return Ok(());
            }
        }
        Err(FanoutError::Lost)
    };
    timeout(ANSWER_TIMEOUT, comes_back).await.unwrap_or(Err(FanoutError::Deaf))
}

async fn connect(url: &FanoutUrl) -> Result<Connected, FanoutError> {
    let connecting = async {
        let client = Client::open(url.reveal())?;
        let (mut subscribing, heard) = client.get_async_pubsub().await?.split();
        subscribing.subscribe(url.channel()).await?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let publishing = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Connected { publishing, _subscribing: subscribing, heard })
    };
    let connected = timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| FanoutError::Slow)?;
    connected.map_err(|error| failed(error, url.channel()))
}

async fn publish(connection: &mut MultiplexedConnection, channel: &str, bytes: &[u8]) -> Result<(), FanoutError> {
    let mut publish = redis::cmd("PUBLISH");
    let published: Result<(), _> = publish.arg(channel).arg(bytes).query_async(connection).await;
    published.map_err(|error| failed(error, channel))
}

/// What a failure means for whoever set it up.
fn failed(error: RedisError, channel: &str) -> FanoutError {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoPerm) => FanoutError::NotAllowed { channel: channel.to_owned() },
        ErrorKind::AuthenticationFailed => FanoutError::SignIn(error),
        _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => FanoutError::SignIn(error),
        _ if error.is_timeout() => FanoutError::Slow,
        ErrorKind::Parse => FanoutError::Other,
        ErrorKind::Io => FanoutError::Unreachable(error),
        _ => FanoutError::Failed(error),
    }
}

/// How long to wait before the next try: never the same for two servers.
fn wait_ms(failures: u32) -> u64 {
    let bound = FIRST_WAIT_MS.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT_MS);
    bound / 2 + draw() % (bound / 2)
}

fn draw() -> u64 {
    let mut bytes = [0; 8];
    Draw(&SystemRandom).fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
