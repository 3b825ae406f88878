//! Server-sent events, as they come out of a connection in pieces.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: String,
}

/// What has come so far and is not a whole event yet.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pending: Vec<u8>,
    begun: Event,
}

/// A line that does not end is cut here, so that a broken server cannot fill the memory.
const LONGEST_LINE: usize = 4 * 1024 * 1024;

impl Events {
    /// Takes the next piece and gives the events that are whole with it.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut whole = Vec::new();
        self.pending.extend_from_slice(piece);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            whole.extend(self.line(line.trim_end_matches(['\r', '\n'])));
        }
        self.pending.truncate(LONGEST_LINE);
        whole
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.begun);
            return (!event.data.is_empty()).then_some(event);
        }
        // What begins with a colon is a comment that keeps the connection alive.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.begun.id),
            "event" => value.clone_into(&mut self.begun.name),
            "data" if self.begun.data.is_empty() => value.clone_into(&mut self.begun.data),
            "data" => self.begun.data.push_str(&format!("\n{value}")),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_connection_cuts_them() {
        let text = ":\n\nid: 1\nevent: state\ndata: {\"a\":\"ü\"}\n\nid: 2\r\ndata: x\r\ndata: y\r\n\r\nid: 3\n";
        let wanted = vec![
            Event { id: "1".to_owned(), name: "state".to_owned(), data: "{\"a\":\"ü\"}".to_owned() },
            Event { id: "2".to_owned(), name: String::new(), data: "x\ny".to_owned() },
        ];
        for size in 1..=text.len() {
            let mut events = Events::default();
            let found: Vec<Event> = text.as_bytes().chunks(size).flat_map(|piece| events.take(piece)).collect();
            assert_eq!(found, wanted, "in pieces of {size}");
        }
    }
}
