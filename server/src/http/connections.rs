//! Connections: how many, how slow, and how they end.

mod watchdog;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::ServerConfig;
use crate::http::connections::watchdog::{Patience, Watchdog};
use crate::metrics::Metrics;
use crate::tls::Tls;

/// Where connections come in.
pub struct Entrance {
    /// The socket.
    pub listener: TcpListener,
    /// How connections are made secure; nothing: they are plain.
    pub tls: Option<Arc<Tls>>,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
}

/// How long to wait when no connection can be taken, because there are no file descriptors for instance.
const ACCEPT_AGAIN_MS: u64 = 100;

/// Serves until `stop` is ready; then finishes what is open, within the configured time.
pub async fn serve(entrance: Entrance, router: Router, config: &ServerConfig, stop: impl Future<Output = ()>) {
    let Entrance { listener, tls, metrics } = entrance;
    let graceful = GracefulShutdown::new();
    let free = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, permit) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &free) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_AGAIN_MS)).await;
                    continue;
                }
            },
        };
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(config.head_timeout.get());
        let (router, watcher, counted) = (router.clone(), graceful.watcher(), metrics.connection());
        let acceptor = tls.as_ref().map(|tls| tls.acceptor());
        let patience = Patience { head: config.head_timeout.get(), answer: config.answer_timeout.get() };
        connections.spawn(async move {
            match acceptor {
                None => serve_one(stream, &builder, router, watcher, patience).await,
                // Apart, because plain connections have no use for what it takes.
                Some(acceptor) => Box::pin(serve_secure(stream, acceptor, builder, router, watcher, patience)).await,
            }
            drop((permit, counted));
        });
        // Those that are through.
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    if tokio::time::timeout(config.stop_timeout.get(), graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = connections.len(), "stopped while requests were open");
    }
    connections.shutdown().await;
}

async fn serve_secure(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    builder: Builder<TokioExecutor>,
    router: Router,
    watcher: Watcher,
    patience: Patience,
) {
    match tokio::time::timeout(patience.head, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve_one(stream, &builder, router, watcher, patience).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection did not become a secure one"),
        Err(_) => tracing::debug!("a connection became a secure one too slowly"),
    }
}

async fn serve_one(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    builder: &Builder<TokioExecutor>,
    router: Router,
    watcher: Watcher,
    patience: Patience,
) {
    let (watchdog, watched) = Watchdog::over(router);
    let service = service_fn(move |request| watched.serve(request));
    // Pinned where they are made: whoever waits for long has them in memory once.
    let serving = pin!(watcher.watch(builder.serve_connection(TokioIo::new(stream), service)));
    let ends = pin!(watchdog.ends(patience));
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::debug!(error, "a connection broke off");
        },
        () = ends => tracing::debug!("a connection was given up: nothing came, or nothing was taken"),
    }
}

async fn accept(listener: &TcpListener, free: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(free).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Answers are small and written whole.
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}
