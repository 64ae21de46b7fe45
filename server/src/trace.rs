//! What ties log lines, answers and calls to others together: request ids and the trace context of the W3C.

use std::fmt::{self, Display};
use std::future::Future;

use crate::clock::RandomSource;
use crate::hex::hex;

/// The trace that a request belongs to, and this server's part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    /// Drawn here: those whom this request makes us call see us as their parent.
    span_id: [u8; 8],
    flags: u8,
    state: Option<String>,
}

/// Names a request in logs and in its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The header of the context itself.
pub const TRACEPARENT: &str = "traceparent";
/// The header that tracing systems add to it.
pub const TRACESTATE: &str = "tracestate";
/// The header of the request's name.
pub const REQUEST_ID: &str = "x-request-id";

/// The length of a request id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// The length of `tracestate` that is passed on, in bytes: what the W3C asks for.
const STATE_BYTES_MAX: usize = 512;
/// The length of `traceparent` in the version that we know, in bytes.
const PARENT_BYTES: usize = 55;

/// The trace of the request that is being served; nothing outside of requests.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Serves a request as part of a trace: [`current`] finds it inside.
pub fn within<F: Future>(context: TraceContext, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, work)
}

impl TraceContext {
    /// Goes on with the trace of the caller, or begins one if its headers name none.
    pub fn begin(parent: Option<&str>, state: Option<&str>, random: &dyn RandomSource) -> Self {
        let mut span_id = [0; 8];
        random.fill(&mut span_id);
        // Zeros name nothing.
        span_id[7] |= 1;
        if let Some((trace_id, flags)) = parent.and_then(parse_parent) {
            let state = state.filter(|it| is_short_text(it, STATE_BYTES_MAX)).map(str::to_owned);
            return Self { trace_id, span_id, flags, state };
        }
        let mut trace_id = [0; 16];
        random.fill(&mut trace_id);
        trace_id[15] |= 1;
        Self { trace_id, span_id, flags: 0, state: None }
    }

    /// The trace's id, in hexadecimal.
    pub fn trace_id(&self) -> String {
        hex(&self.trace_id)
    }

    /// `traceparent` for calls that this request makes.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", hex(&self.trace_id), hex(&self.span_id), self.flags)
    }

    /// `tracestate` for them: as it came.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl RequestId {
    /// The client's, if it is a short word of letters, digits and `-._~:/+=@`; otherwise one that is drawn.
    pub fn choose(asked: Option<&str>, random: &dyn RandomSource) -> Self {
        let is_word = |it: &&str| {
            !it.is_empty()
                && it.len() <= REQUEST_ID_BYTES_MAX
                && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/+=@".contains(&byte))
        };
        if let Some(asked) = asked.filter(is_word) {
            return Self(asked.to_owned());
        }
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        Self(hex(&bytes))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Trace id and flags. Later versions may add something behind a further `-`, and nothing else.
fn parse_parent(text: &str) -> Option<([u8; 16], u8)> {
    let bytes = text.as_bytes();
    let (known, more) = bytes.split_at_checked(PARENT_BYTES)?;
    let [version] = parse_hex(&known[..2])?;
    let may_end = more.is_empty() || (version != 0 && more[0] == b'-');
    if version == 0xff || !may_end || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
        return None;
    }
    let trace_id: [u8; 16] = parse_hex(&known[3..35])?;
    let parent_id: [u8; 8] = parse_hex(&known[36..52])?;
    let [flags] = parse_hex(&known[53..])?;
    // Of the flags, we know that of sampling.
    (trace_id != [0; 16] && parent_id != [0; 8]).then_some((trace_id, flags & 1))
}

/// Lower case only, as the W3C has it.
fn parse_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn is_short_text(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sevens;

    impl RandomSource for Sevens {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0x77);
        }
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_trace_goes_on_under_a_span_of_our_own() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let context = TraceContext::begin(Some(&parent), Some("vendor=1"), &Sevens);
        assert_eq!(context.trace_id(), TRACE);
        assert_eq!(context.traceparent(), format!("00-{TRACE}-7777777777777777-01"));
        assert_eq!(context.tracestate(), Some("vendor=1"));
    }

    #[test]
    fn what_is_no_trace_context_begins_a_new_trace() {
        let taken = |parent: &str| TraceContext::begin(Some(parent), Some("vendor=1"), &Sevens).trace_id() == TRACE;
        for (parent, expected) in [
            (format!("00-{TRACE}-00f067aa0ba902b7-00"), true),
            (format!("00-{TRACE}-00f067aa0ba902b7-ff"), true),
            (format!("01-{TRACE}-00f067aa0ba902b7-01"), true),
            (format!("cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-brings"), true),
            (format!("cc-{TRACE}-00f067aa0ba902b7-01.what"), false),
            (format!("00-{TRACE}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), false),
            (format!("00-{TRACE}-0000000000000000-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{TRACE}-00f067aa0ba902b7-0"), false),
            (format!("00_{TRACE}-00f067aa0ba902b7-01"), false),
            (format!(" 00-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("00-{TRACE}-00f067aa0ba902b7-0g"), false),
            ("é".repeat(28), false),
            (String::new(), false),
        ] {
            assert_eq!(taken(&parent), expected, "{parent}");
        }
        let begun = TraceContext::begin(None, Some("vendor=1"), &Sevens);
        assert_eq!(begun.tracestate(), None);
        assert_eq!(begun.traceparent(), format!("00-{}-7777777777777777-00", "77".repeat(16)));
    }

    #[test]
    fn a_request_id_of_the_client_is_taken_if_it_is_a_short_word() {
        let choose = |asked: Option<&str>| RequestId::choose(asked, &Sevens).to_string();
        assert_eq!(choose(Some("Root=1-67891233:abc")), "Root=1-67891233:abc");
        let drawn = "77".repeat(16);
        for strange in [None, Some(""), Some("two words"), Some("\"quoted\""), Some(&*"x".repeat(129))] {
            assert_eq!(choose(strange), drawn, "{strange:?}");
        }
    }

    #[tokio::test]
    async fn the_trace_is_found_inside_its_request_only() {
        let context = TraceContext::begin(None, None, &Sevens);
        assert_eq!(current(), None);
        assert_eq!(within(context.clone(), async { current() }).await, Some(context));
    }
}
