//! Fetching an issuer's documents, which are somebody else's: within a time and a size, and from nowhere but there.

use async_trait::async_trait;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, StatusCode};

use crate::config::HttpUrl;

/// Fetches documents.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The document at this address.
    ///
    /// # Errors
    /// If it does not come as it should.
    async fn fetch(&self, url: &HttpUrl) -> Result<Vec<u8>, FetchError>;
}

/// Why a document does not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no answer, or it breaks off, takes too long, or leads astray.
    #[error("the request failed")]
    Failed(#[source] reqwest::Error),
    /// The answer is another one.
    #[error("the answer's status is {0}")]
    Status(StatusCode),
    /// The answer is longer than such a document.
    #[error("the answer is longer than {BYTES_MAX} bytes")]
    TooLarge,
}

/// Fetches over HTTP.
pub struct HttpFetch(Client);

/// A document's length in bytes.
const BYTES_MAX: usize = 256 << 10;
/// How long a document may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// How often an answer may lead to another address.
const REDIRECTS_MAX: usize = 3;

impl HttpFetch {
    /// A client.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new() -> Result<Self, FetchError> {
        let client = Client::builder().timeout(TIMEOUT).redirect(Policy::custom(redirect));
        client.user_agent("syncline").build().map(Self).map_err(FetchError::Failed)
    }
}

/// Follows where the scheme stays the same.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous();
    if from.len() > REDIRECTS_MAX {
        return attempt.error("it leads on and on");
    }
    if from.iter().any(|url| url.scheme() != attempt.url().scheme()) {
        return attempt.error("it leads to another scheme");
    }
    attempt.follow()
}

#[async_trait]
impl Fetch for HttpFetch {
    async fn fetch(&self, url: &HttpUrl) -> Result<Vec<u8>, FetchError> {
        let mut response = self.0.get(url.as_str()).send().await.map_err(FetchError::Failed)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(FetchError::Failed)? {
            if document.len() + chunk.len() > BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::causes::with_causes;

    /// What becomes of an answer; `HOST` in it is the server's own address.
    async fn fetch(path: &str, answer: &'static str, body: &[u8]) -> Result<usize, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let answer = [answer.replace("HOST", &here).as_bytes(), body].concat();
        let served = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let read = stream.read(&mut head).await.unwrap();
                let text = String::from_utf8_lossy(&head[..read]).into_owned();
                let ok = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}".to_vec();
                let answer = if text.starts_with("GET /target") { &ok } else { &answer };
                let _may_not_be_read = stream.write_all(answer).await;
            }
        });
        let url = format!("http://{here}{path}").parse().unwrap();
        let fetched = HttpFetch::new().unwrap().fetch(&url).await;
        served.abort();
        fetched.map(|document| document.len()).map_err(|error| with_causes(&error))
    }

    #[tokio::test]
    async fn documents_have_a_size_and_come_from_where_they_were_asked_for() {
        let plain = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let to_target = "HTTP/1.1 302 Found\r\nlocation: http://HOST/target\r\ncontent-length: 0\r\n\r\n";
        let on_and_on = "HTTP/1.1 302 Found\r\nlocation: http://HOST/\r\ncontent-length: 0\r\n\r\n";
        let to_https = "HTTP/1.1 302 Found\r\nlocation: https://HOST/target\r\ncontent-length: 0\r\n\r\n";
        let to_file = "HTTP/1.1 302 Found\r\nlocation: file:///target\r\ncontent-length: 0\r\n\r\n";
        let gone = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let broken = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{";
        let full = vec![b' '; BYTES_MAX];
        let too_full = vec![b' '; BYTES_MAX + 1];
        for (answer, body, expected) in [
            (plain, b"{}".as_slice(), Ok(2)),
            (plain, &full, Ok(BYTES_MAX)),
            (plain, &too_full, Err("the answer is longer than 262144 bytes")),
            (to_target, b"", Ok(2)),
            (on_and_on, b"", Err("it leads on and on")),
            (to_https, b"", Err("it leads to another scheme")),
            (to_file, b"", Err("")),
            (gone, b"", Err("the answer's status is 404")),
            (broken, b"", Err("the request failed")),
        ] {
            let fetched = fetch("/", answer, body).await;
            match (&fetched, expected) {
                (Ok(found), Ok(length)) => assert_eq!(*found, length, "{answer}"),
                (Err(found), Err(text)) => assert!(found.contains(text), "{answer}: {found}"),
                _ => panic!("{answer}: {fetched:?}"),
            }
        }
    }
}
