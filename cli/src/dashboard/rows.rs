//! One row per runtime: what stands in it, which are shown, and which of them have changed.

use std::collections::BTreeMap;

use askama::Template;
use crds::{AgentRuntime, AgentRuntimeStatus, RuntimeState};

use super::board::Board;
use crate::kubernetes::identity;
use crate::{owner, show};

/// What a colour may say. Only what runs is good: a runtime that is held is never green.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Held,
    Moving,
    Bad,
}

impl Tone {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Held => "held",
            Self::Moving => "moving",
            Self::Bad => "bad",
        }
    }

    pub(super) fn of(status: &AgentRuntimeStatus) -> Self {
        let is = |kind: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        match status.state {
            None | Some(RuntimeState::Unknown) => Self::Bad,
            Some(_) if is("Stalled") => Self::Bad,
            Some(RuntimeState::Paused | RuntimeState::Stopped) => Self::Held,
            Some(RuntimeState::Running) if is("Ready") => Self::Good,
            Some(_) => Self::Moving,
        }
    }
}

/// A row as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Template)]
#[template(path = "row.html")]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) desired: &'static str,
    pub(super) state: &'static str,
    pub(super) tone: &'static str,
    pub(super) acknowledged: String,
    pub(super) in_flight: String,
    pub(super) source: String,
    pub(super) who: String,
    pub(super) why: String,
    pub(super) until: String,
    pub(super) selectable: bool,
}

impl Row {
    pub(super) fn of(runtime: &AgentRuntime, board: &Board, selectable: bool) -> Self {
        let (namespace, name) = identity(runtime);
        let none = AgentRuntimeStatus::default();
        let status = runtime.status.as_ref().unwrap_or(&none);
        let freeze = status.source.strip_prefix("Freeze ").and_then(|name| board.freezes.get(name));
        let annotations = runtime.metadata.annotations.as_ref();
        let said = annotations.and_then(|all| all.get("agents.hive.dev/reason")).cloned();
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
        let message = ready.filter(|c| c.status != "True").map(|c| c.message.clone());
        let frozen = freeze.map(|freeze| freeze.spec.reason.clone()).filter(|reason| !reason.is_empty());
        let ends = freeze.and_then(|freeze| freeze.spec.expires_at.clone());
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            desired: show::desired(status.desired_state.unwrap_or(runtime.spec.desired_state)),
            state: show::state(status),
            tone: Tone::of(status).as_str(),
            acknowledged: format!("{}/{}", status.acknowledged_replicas, status.replicas),
            in_flight: status.in_flight.map_or_else(|| "–".to_owned(), |count| count.to_string()),
            source: if status.source.is_empty() { "–".to_owned() } else { status.source.clone() },
            who: owner::writer(runtime, "desiredState").unwrap_or_else(|| "–".to_owned()),
            why: frozen.or(said).or(message).unwrap_or_default(),
            until: status.drain_deadline.clone().or(ends).unwrap_or_default(),
            selectable,
        }
    }

    /// The id of its element.
    pub(super) fn id(&self) -> String {
        format!("row-{}--{}", self.namespace, self.name)
    }
}

/// Which rows are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) namespace: String,
    pub(super) state: String,
    pub(super) text: String,
}

impl Filter {
    /// From a query.
    pub(super) fn read(query: &str) -> Self {
        let mut filter = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match key.as_ref() {
                "namespace" => filter.namespace = value.into_owned(),
                "state" => filter.state = value.into_owned(),
                "q" => filter.text = value.into_owned(),
                _ => {}
            }
        }
        filter
    }

    /// As a query again.
    pub(super) fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (key, value) in [("namespace", &self.namespace), ("state", &self.state), ("q", &self.text)] {
            if !value.is_empty() {
                query.append_pair(key, value);
            }
        }
        query.finish()
    }

    fn fits(&self, row: &Row) -> bool {
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let state = match self.state.as_str() {
            "trouble" => row.tone == Tone::Bad.as_str(),
            state => is(state, row.state),
        };
        state
            && is(&self.namespace, &row.namespace)
            && [&row.name, &row.source, &row.who, &row.why].into_iter().any(|text| text.contains(&self.text))
    }

    /// The rows that it lets through, in order of namespace and name.
    pub(super) fn rows(&self, board: &Board, selectable: bool) -> Vec<Row> {
        let rows = board.runtimes.values().map(|seen| Row::of(&seen.runtime, board, selectable));
        rows.filter(|row| self.fits(row)).collect()
    }
}

/// What a page has been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    rows: BTreeMap<String, Row>,
}

impl Told {
    /// The rows that are new or changed, and the ids of those that are gone.
    pub(super) fn update(&mut self, rows: Vec<Row>) -> (Vec<Row>, Vec<String>) {
        let now: BTreeMap<String, Row> = rows.into_iter().map(|row| (row.id(), row)).collect();
        let set = now.iter().filter(|(id, row)| self.rows.get(*id) != Some(row)).map(|(_, row)| row.clone()).collect();
        let gone = self.rows.keys().filter(|id| !now.contains_key(*id)).cloned().collect();
        self.rows = now;
        (set, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::tests::pausing;

    fn row(change: impl FnOnce(&mut AgentRuntime)) -> Row {
        let mut runtime = pausing();
        change(&mut runtime);
        Row::of(&runtime, &Board::default(), true)
    }

    #[test]
    fn a_runtime_that_is_held_or_unknown_is_never_green() {
        let toned = |state: RuntimeState, ready: &str| {
            row(|runtime| {
                let status = runtime.status.as_mut().unwrap();
                status.state = Some(state);
                status.conditions[0].status = ready.to_owned();
            })
            .tone
        };
        assert_eq!(toned(RuntimeState::Running, "True"), "good");
        assert_eq!(toned(RuntimeState::Running, "False"), "moving");
        assert_eq!(toned(RuntimeState::Paused, "True"), "held");
        assert_eq!(toned(RuntimeState::Stopped, "True"), "held");
        assert_eq!(toned(RuntimeState::Unknown, "True"), "bad");
        assert_eq!(row(|runtime| runtime.status = None).tone, "bad");
    }

    #[test]
    fn a_row_is_escaped_html() {
        let html = row(|runtime| {
            let why = [("agents.hive.dev/reason".to_owned(), "<script>alert(1)</script>".to_owned())];
            runtime.metadata.annotations = Some(why.into());
        })
        .render()
        .unwrap();
        assert!(!html.contains("<script>"), "{html}");
        insta::assert_snapshot!(html);
    }

    #[test]
    fn filters_fit_together_and_survive_a_query() {
        let all = Filter::read("namespace=shop&state=pausing&q=site");
        assert!(all.fits(&row(|_| {})));
        assert_eq!(Filter::read(&all.query()), all);
        assert!(!Filter::read("namespace=other").fits(&row(|_| {})));
        assert!(!Filter::read("state=trouble").fits(&row(|_| {})));
        assert!(!Filter::read("q=nothing").fits(&row(|_| {})));
    }

    #[test]
    fn only_what_has_changed_is_told_again() {
        let mut told = Told::default();
        assert_eq!(told.update(vec![row(|_| {})]).0.len(), 1);
        assert_eq!(told.update(vec![row(|_| {})]), (Vec::new(), Vec::new()));
        let other = row(|runtime| runtime.metadata.name = Some("other".to_owned()));
        let (set, gone) = told.update(vec![other.clone()]);
        assert_eq!((set, gone), (vec![other], vec!["row-shop--site-watch".to_owned()]));
    }
}
