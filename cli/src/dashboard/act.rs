//! What the page changes: a verb on one or many runtimes, asked for twice, and freezes.

use askama::Template;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use crds::AgentRuntime;
use jiff::Timestamp;

use super::App;
use super::page::{html, message};
use crate::arguments::Freeze;
use crate::values::{Labels, Mode};
use crate::verb::{Verb, Wish};
use crate::{freeze, verb};

/// What a form says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    verb: Option<Verb>,
    ids: Vec<(String, String)>,
    reason: Option<String>,
    force: bool,
    count: usize,
}

impl Asked {
    fn read(form: &[u8]) -> Self {
        let mut asked = Self::default();
        for (key, value) in form_urlencoded::parse(form) {
            match key.as_ref() {
                "verb" => asked.verb = Verb::ALL.into_iter().find(|verb| verb.word() == value),
                "id" => asked.ids.extend(value.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned()))),
                "reason" => asked.reason = Some(value.into_owned()).filter(|reason| !reason.is_empty()),
                "force" => asked.force = value == "yes",
                "count" => asked.count = value.trim().parse().unwrap_or(0),
                _ => {}
            }
        }
        asked
    }

    /// What is to be written to which runtime, and why others are left out.
    fn plans(&self, app: &App, verb: Verb) -> (Vec<(AgentRuntime, serde_json::Value)>, Vec<String>) {
        let board = app.watched.read();
        let wish = Wish { reason: self.reason.clone(), force: self.force, nonce: Timestamp::now().to_string() };
        let (mut plans, mut refused) = (Vec::new(), Vec::new());
        for id in &self.ids {
            match board.runtimes.get(id).map(|seen| (seen, verb::plan(verb, &seen.runtime, &wish))) {
                Some((seen, Ok(patch))) => plans.push((seen.runtime.clone(), patch)),
                Some((_, Err(error))) => refused.push(error.to_string()),
                None => refused.push(format!("{}/{} is gone", id.0, id.1)),
            }
        }
        (plans, refused)
    }
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm {
    verb: &'static str,
    count: usize,
    ids: Vec<String>,
    refused: Vec<String>,
}

#[derive(Template)]
#[template(path = "done.html")]
struct Done {
    verb: &'static str,
    asked: Vec<String>,
    failed: Vec<String>,
}

/// What a verb would change, to be confirmed: the number, and who is left out and why.
pub(super) async fn confirm(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let asked = Asked::read(query.unwrap_or_default().as_bytes());
    let Some(verb) = asked.verb else {
        return (StatusCode::BAD_REQUEST, "verb: there is no such verb").into_response();
    };
    let (plans, refused) = asked.plans(&app, verb);
    let id = |(runtime, _): &(AgentRuntime, serde_json::Value)| {
        let (namespace, name) = crate::kubernetes::identity(runtime);
        format!("{namespace}/{name}")
    };
    html(&Confirm { verb: verb.word(), count: plans.len(), ids: plans.iter().map(id).collect(), refused })
}

/// Does it, if the number that was confirmed is still the one it would change.
pub(super) async fn act(State(app): State<App>, body: Bytes) -> Response {
    let asked = Asked::read(&body);
    let Some(verb) = asked.verb else {
        return (StatusCode::BAD_REQUEST, "verb: there is no such verb").into_response();
    };
    let (plans, mut failed) = asked.plans(&app, verb);
    if plans.len() != asked.count {
        failed.push(format!("{} was confirmed, but {} would change: nothing was changed", asked.count, plans.len()));
        return html(&Done { verb: verb.word(), asked: Vec::new(), failed });
    }
    let mut done = Vec::new();
    for (runtime, patch) in &plans {
        let (namespace, name) = crate::kubernetes::identity(runtime);
        match app.cluster.patch(runtime, patch).await {
            Ok(_) => done.push(format!("{namespace}/{name}")),
            Err(error) => failed.push(error.to_string()),
        }
    }
    html(&Done { verb: verb.word(), asked: done, failed })
}

/// The freeze that a form describes, and the namespace that it is for; none for all.
fn wanted(form: &[u8]) -> Result<(Freeze, Option<String>), String> {
    let mut task = Freeze::default();
    let mut namespace = None;
    for (key, value) in form_urlencoded::parse(form) {
        let text = Some(value.to_string()).filter(|text| !text.is_empty());
        match key.as_ref() {
            "name" => task.name = value.into_owned(),
            "namespace" => namespace = text,
            "selector" => task.selector = text.map(|text| text.parse::<Labels>()).transpose()?,
            "stop" => task.stop = value == "yes",
            "mode" => task.mode = text.and_then(|text| Mode::named(&text)),
            "reason" => task.reason = text,
            _ => {}
        }
    }
    if task.name.is_empty() {
        return Err("give the freeze a name".to_owned());
    }
    Ok((task, namespace))
}

/// Makes a freeze.
pub(super) async fn freeze(State(app): State<App>, body: Bytes) -> Response {
    let made = wanted(&body).and_then(|(task, namespace)| {
        freeze::object(&task, namespace.as_deref(), Timestamp::now()).map_err(|error| error.to_string())
    });
    let outcome = match made {
        Ok(object) => app.cluster.create_freeze(&object).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => Redirect::to("/freezes").into_response(),
        Err(error) => message(&app, StatusCode::BAD_REQUEST, error),
    }
}

/// Takes a freeze away.
pub(super) async fn unfreeze(State(app): State<App>, Path(name): Path<String>) -> Response {
    match freeze::delete(&app.cluster, &name).await {
        Ok(()) => Redirect::to("/freezes").into_response(),
        Err(error) => message(&app, StatusCode::BAD_REQUEST, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_names_its_verb_and_its_runtimes() {
        let asked = Asked::read(b"verb=pause&id=a%2Fb&id=c%2Fd&id=broken&reason=bad+model&count=2&force=yes");
        let ids = vec![("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())];
        let reason = Some("bad model".to_owned());
        assert_eq!(asked, Asked { verb: Some(Verb::Pause), ids, reason, force: true, count: 2 });
        assert_eq!(Asked::read(b"verb=explode").verb, None);
    }

    #[test]
    fn a_form_describes_a_freeze() {
        let (task, namespace) = wanted(b"name=f&namespace=&selector=a%3Db&stop=yes&mode=checkpoint&reason=r").unwrap();
        assert_eq!((namespace, task.stop, task.selector.unwrap().to_string()), (None, true, "a=b".to_owned()));
        assert!(matches!(task.mode, Some(Mode::Checkpoint)));
        assert!(wanted(b"namespace=a").unwrap_err().contains("name"));
        assert!(wanted(b"name=f&selector=a").unwrap_err().contains("labels"));
    }
}
