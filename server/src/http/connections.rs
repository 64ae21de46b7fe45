//! Connections: how many, how slow, and how they end.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::config::ServerConfig;

/// How long to wait when no connection can be taken, because there are no file descriptors for instance.
const ACCEPT_AGAIN_MS: u64 = 100;

/// Serves until `stop` is ready; then finishes what is open, within the configured time.
pub async fn serve(listener: TcpListener, router: Router, config: &ServerConfig, stop: impl Future<Output = ()>) {
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
        builder.http1().timer(TokioTimer::new()).header_read_timeout(config.head_timeout.get());
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(config.head_timeout.get());
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection broke off");
            }
            drop(permit);
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

async fn accept(listener: &TcpListener, free: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(free).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Answers are small and written whole.
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}
