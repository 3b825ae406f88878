//! Names of tools as providers take them: letters, digits, `_` and `-`, at most 64. What has another name is sent under
//! one of these, and called by its own.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Message, Request, Tool};

/// The longest name.
const LONGEST: usize = 64;

/// The names under which tools are sent that have others.
#[derive(Debug, Default)]
pub(super) struct Names {
    sent: BTreeMap<String, String>,
}

impl Names {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let own: BTreeSet<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
        let mut taken: BTreeSet<String> =
            own.iter().filter(|name| is_taken_as_it_is(name)).map(|n| (*n).to_owned()).collect();
        let mut sent = BTreeMap::new();
        for name in own.into_iter().filter(|name| !is_taken_as_it_is(name)) {
            let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).take(LONGEST).collect();
            // There are never as many tools as there are numbers to tell them apart by.
            let numbered = (2..u32::MAX).map(|n| {
                let end = format!("_{n}");
                plain.chars().take(LONGEST - end.len()).collect::<String>() + &end
            });
            let free =
                std::iter::once(plain.clone()).chain(numbered).find(|name| !name.is_empty() && !taken.contains(name));
            if let Some(free) = free {
                taken.insert(free.clone());
                sent.insert(name.to_owned(), free);
            }
        }
        Self { sent }
    }

    /// The messages and tools with the names under which they are sent; none if all are sent as they are.
    pub(super) fn sent(&self, request: &Request<'_>) -> Option<(Vec<Message>, Vec<Tool>)> {
        if self.sent.is_empty() {
            return None;
        }
        let (mut messages, mut tools) = (request.messages.to_vec(), request.tools.to_vec());
        for message in &mut messages {
            match message {
                Message::Assistant { calls, .. } => calls.iter_mut().for_each(|call| self.send(&mut call.name)),
                Message::Tool { name, .. } => self.send(name),
                Message::User { .. } => {}
            }
        }
        tools.iter_mut().for_each(|tool| self.send(&mut tool.name));
        Some((messages, tools))
    }

    fn send(&self, name: &mut String) {
        if let Some(sent) = self.sent.get(name.as_str()) {
            name.clone_from(sent);
        }
    }

    /// An answer with the tools' own names.
    pub(super) fn read(&self, mut answer: Answer) -> Answer {
        for call in &mut answer.calls {
            if let Some((own, _)) = self.sent.iter().find(|(_, sent)| **sent == call.name) {
                call.name.clone_from(own);
            }
        }
        answer
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn is_taken_as_it_is(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len()) && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::super::Call;
    use super::*;

    proptest! {
        #[test]
        fn whatever_a_tool_is_called_it_is_sent_under_one_name_and_found_by_it(
            names in prop::collection::btree_set("[a-c./ é_-]{0,3}|[a.]{60,80}", 1..12),
        ) {
            let tool = |name: &String| Tool { name: name.clone(), description: String::new(), schema: Value::Null };
            let tools: Vec<Tool> = names.iter().map(tool).collect();
            let request = Request { model: None, system: "", messages: &[], tools: &tools, max_tokens: 1, idempotency_key: "" };
            let known = Names::of(&request);
            let sent = known.sent(&request).map_or(tools.clone(), |(_, tools)| tools);
            let distinct: BTreeSet<&str> = sent.iter().map(|tool| tool.name.as_str()).collect();
            prop_assert_eq!(distinct.len(), tools.len());
            for (own, sent) in tools.iter().zip(&sent) {
                prop_assert!(is_taken_as_it_is(&sent.name), "{:?}", sent.name);
                let call = Call { id: String::new(), name: sent.name.clone(), arguments: Map::new(), state: Map::new() };
                let read = known.read(Answer { calls: vec![call], ..Answer::default() });
                prop_assert_eq!(&read.calls[0].name, &own.name);
            }
        }
    }
}
