//! Server-sent events, put together from the pieces in which they arrive.

/// Splits a stream into the data of its events.
#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: Vec<u8>,
    data: Vec<String>,
}

impl Events {
    /// Takes in a piece and gives the data of the events that it completes.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<String> {
        self.waiting.extend_from_slice(piece);
        let mut complete = Vec::new();
        while let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.waiting.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                complete.extend(self.take());
            } else if let Some(data) = line.strip_prefix("data:") {
                self.data.push(data.strip_prefix(' ').unwrap_or(data).to_owned());
            }
        }
        complete
    }

    /// The bytes that wait for their end.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.data.iter().map(String::len).sum::<usize>()
    }

    fn take(&mut self) -> Option<String> {
        let data = std::mem::take(&mut self.data);
        (!data.is_empty()).then(|| data.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str =
        ": comment\n\nevent: x\ndata: {\"a\":\r\ndata: \"ä\"}\r\n\r\ndata:two\n\nid: 3\n\ndata: [DONE]\n\n";

    #[test]
    fn events_are_found() {
        assert_eq!(Events::default().push(STREAM.as_bytes()), ["{\"a\":\n\"ä\"}", "two", "[DONE]"]);
    }

    proptest! {
        #[test]
        fn where_a_stream_is_cut_changes_nothing(cuts in prop::collection::vec(0usize..STREAM.len(), 0..10)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut events = Events::default();
            let pieces = cuts.windows(2).flat_map(|pair| events.push(&STREAM.as_bytes()[pair[0]..pair[1]]));
            let found: Vec<String> = pieces.collect();
            prop_assert_eq!(found, Events::default().push(STREAM.as_bytes()));
            prop_assert_eq!(events.waiting(), 0);
        }
    }
}
