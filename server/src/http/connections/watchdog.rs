//! Ends connections whose other side sends nothing, or does not take what it asked for.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

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
pub(super) struct Watchdog(watch::Receiver<Open>);

/// Serves one connection, and says what is open on it.
pub(super) struct Watched {
    router: TowerToHyperService<Router>,
    open: Arc<watch::Sender<Open>>,
}

/// What is open on a connection.
#[derive(Default)]
struct Open {
    /// Requests whose answers are not taken.
    requests: usize,
    /// When answers began that have an end, with a number each.
    answers: BTreeSet<(Instant, u64)>,
    /// The last number.
    number: u64,
}

/// A request whose answer is not taken.
struct Underway {
    open: Arc<watch::Sender<Open>>,
    /// The answer, once it has begun.
    answer: Option<(Instant, u64)>,
    /// Given back with it.
    _places: Places,
}

/// The body of an answer.
pub(super) struct Answer {
    body: Body,
    _underway: Underway,
}

impl Watchdog {
    pub(super) fn over(router: Router) -> (Self, Watched) {
        let (open, watched) = watch::channel(Open::default());
        (Self(watched), Watched { router: TowerToHyperService::new(router), open: Arc::new(open) })
    }

    /// Ready when the other side has tried our patience.
    pub(super) async fn ends(mut self, patience: Patience) {
        loop {
            let until = {
                let open = self.0.borrow_and_update();
                match open.answers.first() {
                    Some((begun, _)) => Some(*begun + patience.answer),
                    None if open.requests == 0 => Some(Instant::now() + patience.head),
                    // Whoever reads a body has an eye on the time.
                    None => None,
                }
            };
            let changed = match until {
                Some(until) => timeout_at(until, self.0.changed()).await,
                None => Ok(self.0.changed().await),
            };
            if !matches!(changed, Ok(Ok(()))) {
                return;
            }
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
        self.open.send_modify(|open| open.requests += 1);
        let mut underway = Underway { open: Arc::clone(&self.open), answer: None, _places: places };
        let answered = self.router.call(request);
        async move {
            let response = answered.await?;
            let content_type = response.headers().get(header::CONTENT_TYPE);
            if content_type.is_none_or(|it| it != EVENTS) {
                underway.begin_answer();
            }
            Ok(response.map(|body| Answer { body, _underway: underway }))
        }
    }
}

impl Underway {
    fn begin_answer(&mut self) {
        self.open.send_modify(|open| {
            open.number += 1;
            let answer = (Instant::now(), open.number);
            open.answers.insert(answer);
            self.answer = Some(answer);
        });
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.open.send_modify(|open| {
            open.requests -= 1;
            if let Some(answer) = &self.answer {
                open.answers.remove(answer);
            }
        });
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
