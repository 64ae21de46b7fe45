//! Reading a stream of server-sent events, however it is cut into pieces on its way.

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The event's type; empty: `message`.
    pub name: String,
    /// What it carries.
    pub data: String,
    /// The id of the last event that had one, up to and with this one: where the stream is resumed.
    pub last_id: Option<String>,
}

/// Makes events of the bytes of a stream, as the HTML standard says ("Interpreting an event stream").
#[derive(Clone, Debug, Default)]
pub struct EventParser {
    line: Vec<u8>,
    /// The last line ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    began: bool,
    event: Event,
    has_data: bool,
    is_broken: bool,
}

/// A line's length in bytes. A longer one breaks the stream: it is not one of ours.
const LINE_BYTES_MAX: usize = 64 << 10;

impl EventParser {
    /// Takes the next bytes; gives the events that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.after_return) => {}
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.end_line(&line));
                }
                _ => {
                    self.after_return = false;
                    self.is_broken |= self.line.len() >= LINE_BYTES_MAX || self.event.data.len() >= LINE_BYTES_MAX;
                    if !self.is_broken {
                        self.line.push(*byte);
                    }
                }
            }
        }
        events
    }

    /// Whether the stream is not worth reading on: what comes is no stream of events.
    pub const fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn end_line(&mut self, line: &[u8]) -> Option<Event> {
        let line = String::from_utf8_lossy(line);
        let is_first = !std::mem::replace(&mut self.began, true);
        let line = if is_first { line.strip_prefix('\u{feff}').unwrap_or(&line) } else { &line };
        if line.is_empty() {
            let next = Event { last_id: self.event.last_id.clone(), ..Event::default() };
            let mut event = std::mem::replace(&mut self.event, next);
            event.data.truncate(event.data.len().saturating_sub(1));
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                self.event.data += value;
                self.event.data.push('\n');
                self.has_data = true;
            }
            "id" if !value.contains('\0') => self.event.last_id = Some(value.to_owned()),
            // A comment, or a field that is not for us.
            _ => {}
        }
        None
    }
}
