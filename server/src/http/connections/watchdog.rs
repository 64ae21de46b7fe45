//! Ends connections whose other side sends nothing, or does not take what it asked for.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, header};
use hyper::body::{Buf, Frame, Incoming, SizeHint};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::time::{Instant, sleep_until};

use crate::http::places::Places;

/// What streams of events are.
const EVENTS: &str = "text/event-stream";

/// How long to wait for the other side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of the next request.
    pub(super) head: Duration,
    /// Until an answer is taken. Streams of events have no end, and are not waited for.
    pub(super) answer: Duration,
}

/// Watches over one connection.
pub(super) struct Watchdog(Arc<Mutex<Open>>);

/// Serves one connection, and says what is open on it.
pub(super) struct Watched {
    router: TowerToHyperService<Router>,
    open: Arc<Mutex<Open>>,
}

/// What is open on a connection.
struct Open {
    /// Requests whose answers are not taken.
    requests: usize,
    /// When the last one was done with, or the connection began.
    idle_since: Instant,
    /// When answers began that have an end, the oldest first, with a number each.
    answers: Vec<(Instant, u64)>,
    /// The last number.
    number: u64,
}

/// A request whose answer is not taken.
struct Underway {
    open: Arc<Mutex<Open>>,
    /// The number of the answer, once it has begun.
    answer: Option<u64>,
    /// Given back with it.
    _places: Places,
}

/// The body of an answer.
pub(super) struct Answer {
    body: Body,
    underway: Arc<Underway>,
}

/// Bytes of an answer, which is underway until they are written to the connection: protocols drop a body once they have
/// its last bytes in a buffer, however long these stay there.
pub(super) struct Untaken {
    bytes: Bytes,
    _underway: Arc<Underway>,
}

impl Watchdog {
    pub(super) fn over(router: Router) -> (Self, Watched) {
        let open = Open { requests: 0, idle_since: Instant::now(), answers: Vec::new(), number: 0 };
        let open = Arc::new(Mutex::new(open));
        (Self(Arc::clone(&open)), Watched { router: TowerToHyperService::new(router), open })
    }

    /// Ready when the other side has tried our patience.
    ///
    /// It looks when something is due and need not be woken by requests: what comes while it sleeps is due later.
    pub(super) async fn ends(self, patience: Patience) {
        loop {
            let now = Instant::now();
            let due = lock(&self.0).due(patience);
            if due.is_some_and(|due| due <= now) {
                return;
            }
            let look_again = now + patience.head.min(patience.answer);
            sleep_until(due.unwrap_or(look_again).min(look_again)).await;
        }
    }
}

impl Open {
    /// When patience ends, if nothing changes.
    fn due(&self, patience: Patience) -> Option<Instant> {
        match self.answers.first() {
            Some((begun, _)) => Some(*begun + patience.answer),
            None if self.requests == 0 => Some(self.idle_since + patience.head),
            // Whoever reads a body has an eye on the time, and streams have no end.
            None => None,
        }
    }
}

impl Watched {
    pub(super) fn serve(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Answer>, Infallible>> + Send + use<> {
        let places = Places::default();
        request.extensions_mut().insert(places.clone());
        lock(&self.open).requests += 1;
        let mut underway = Underway { open: Arc::clone(&self.open), answer: None, _places: places };
        let answered = self.router.call(request);
        async move {
            let response = answered.await?;
            let content_type = response.headers().get(header::CONTENT_TYPE);
            if content_type.is_none_or(|it| it != EVENTS) {
                underway.begin_answer();
            }
            Ok(response.map(|body| Answer { body, underway: Arc::new(underway) }))
        }
    }
}

impl Underway {
    fn begin_answer(&mut self) {
        let mut open = lock(&self.open);
        open.number += 1;
        let number = open.number;
        open.answers.push((Instant::now(), number));
        self.answer = Some(number);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.requests -= 1;
        open.idle_since = Instant::now();
        if let Some(number) = self.answer {
            open.answers.retain(|(_, other)| *other != number);
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl hyper::body::Body for Answer {
    type Data = Untaken;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Untaken>, axum::Error>>> {
        let Self { body, underway } = self.get_mut();
        let untaken = |bytes| Untaken { bytes, _underway: Arc::clone(underway) };
        Pin::new(body).poll_frame(context).map_ok(|frame| frame.map_data(untaken))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Buf for Untaken {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}
