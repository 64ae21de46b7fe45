//! A stream of events, as an app reads it.

use std::collections::VecDeque;

use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Response};
use sync_core::client::events::{Event, EventParser};

/// A stream of events, read event by event.
#[derive(Debug)]
pub struct Events {
    response: Response,
    parser: EventParser,
    events: VecDeque<Event>,
}

impl Events {
    /// Opens a stream.
    ///
    /// # Panics
    /// If it is not opened.
    pub async fn open(client: &Client, url: &str, token: &str, last_id: Option<&str>) -> Self {
        Self::try_open(client, url, token, last_id).await.expect("the stream opens")
    }

    /// Opens a stream; nothing: it cannot be opened.
    pub async fn try_open(client: &Client, url: &str, token: &str, last_id: Option<&str>) -> Option<Self> {
        let request = client.get(format!("{url}/v1/events")).header(AUTHORIZATION, token);
        let request = last_id.into_iter().fold(request, |request, id| request.header("Last-Event-ID", id));
        let response = request.send().await.ok()?.error_for_status().ok()?;
        Some(Self { response, parser: EventParser::default(), events: VecDeque::new() })
    }

    /// Waits for the next event. Nothing: the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let bytes = self.response.chunk().await.ok().flatten()?;
            self.events.extend(self.parser.feed(&bytes));
        }
    }

    /// Leaves out what comes next, and says how many bytes that were.
    pub async fn skip_chunk(&mut self) -> Option<usize> {
        Some(self.response.chunk().await.ok().flatten()?.len())
    }
}
