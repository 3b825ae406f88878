//! What failures are called in status, which of them are told at once, and when a step that failed is tried again.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::spans::{since, until_retry};
use super::steps::field_of;
use crate::observe::{Cause, ChildKey, Fault, Observed};
use crate::text::cut;

/// A reason and a sentence.
pub(super) type Trouble = (&'static str, String);

/// What may pass by itself is not told before it has lasted so long: a conflict, an API server that restarts.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest text of the API server that is told: a condition's message is for people.
const LONGEST: usize = 512;

/// Whether a step may be tried: it has not failed, or something else, or long enough ago.
pub(super) fn is_due(fault: Option<&Fault>, of: &str, now: Timestamp) -> bool {
    fault.is_none_or(|fault| fault.of != of || until_retry(now, fault.next_attempt).is_none())
}

/// How long until a step is tried again; none if it is due, or has not failed.
pub(super) fn retry_in(fault: Option<&Fault>, now: Timestamp) -> Option<Duration> {
    until_retry(now, fault?.next_attempt)
}

/// When to look again though nothing happens: a step is tried again, or a failure has lasted long enough to be told.
pub(super) fn look_again(seen: &Observed, now: Timestamp) -> Option<Duration> {
    let faults = &seen.faults;
    let safety = faults.boot.iter().chain(&faults.pods).chain(&faults.scale);
    let told = safety.clone().chain(&faults.agent).chain(faults.children.values());
    let told = told.filter_map(|fault| PATIENCE.checked_sub(since(now, fault.since)).filter(|left| !left.is_zero()));
    safety.filter_map(|fault| retry_in(Some(fault), now)).chain(told).min()
}

/// What is told of the boot ConfigMap, without which nothing may be called paused.
pub(super) fn of_boot(seen: &Observed, name: &str, now: Timestamp) -> Option<Trouble> {
    let fault = seen.faults.boot.as_ref().filter(|fault| is_told(fault, now))?;
    let why = match &fault.cause {
        Cause::NameTaken { message } => return Some(("NameTaken", format!("ConfigMap {name}: {message}"))),
        Cause::Refused { .. } | Cause::NoAnswer { .. } => said(&fault.cause),
    };
    let what = format!("ConfigMap {name} cannot be written, and pods obey what it says: {why}");
    Some(("BootFileUnwritable", what))
}

/// What is told of the list of pods.
pub(super) fn of_pods(seen: &Observed, now: Timestamp) -> Option<Trouble> {
    let fault = seen.faults.pods.as_ref().filter(|fault| is_told(fault, now))?;
    Some(("PodsUnlisted", format!("the pods cannot be listed: {}", said(&fault.cause))))
}

/// What is told of children that are to be applied: the first that is somebody else's, or cannot be.
pub(super) fn of_children(seen: &Observed, outstanding: &BTreeSet<ChildKey>, now: Timestamp) -> Option<Trouble> {
    let wanted = |key: &ChildKey| outstanding.contains(key);
    let foreign = seen.foreign.iter().find(|(key, _)| wanted(key));
    let foreign = foreign.map(|(key, whose)| ("NameTaken", taken(key, whose)));
    let faults = || seen.faults.children.iter().filter(|(key, fault)| wanted(key) && is_told(fault, now));
    let failing = || faults().next().map(|(key, fault)| of_child(key, fault));
    let scale = seen.faults.scale.as_ref().filter(|fault| is_told(fault, now));
    let scale = || scale.map(|fault| (reason(&fault.cause), format!("the number of pods: {}", said(&fault.cause))));
    let agent = seen.faults.agent.as_ref().filter(|fault| is_told(fault, now));
    let agent =
        || agent.map(|fault| (reason(&fault.cause), format!("spec.agent.configMapRef: {}", said(&fault.cause))));
    foreign.or_else(failing).or_else(scale).or_else(agent)
}

fn of_child(key: &ChildKey, fault: &Fault) -> Trouble {
    match (&fault.cause, reason(&fault.cause)) {
        (Cause::NameTaken { message }, reason) => (reason, taken(key, message)),
        (cause, reason @ "InvalidTemplate") => (reason, format!("{}: {}", field_of(key.kind), said(cause))),
        (cause, reason) => (reason, format!("{:?} {}: {}", key.kind, key.name, said(cause))),
    }
}

fn taken(key: &ChildKey, whose: &str) -> String {
    format!("{:?} {} is not this object's and is left alone: {whose}; rename one of them", key.kind, key.name)
}

/// What only somebody's help ends is told at once.
fn is_told(fault: &Fault, now: Timestamp) -> bool {
    match reason(&fault.cause) {
        "ApplyFailed" | "WebhookFailed" => since(now, fault.since) >= PATIENCE,
        _ => true,
    }
}

/// A word for the condition. The API server tells causes that have the same code by their text alone.
pub(super) fn reason(cause: &Cause) -> &'static str {
    let Cause::Refused { code, message } = cause else {
        return if matches!(cause, Cause::NameTaken { .. }) { "NameTaken" } else { "ApplyFailed" };
    };
    let says = |part: &str| message.contains(part);
    match code {
        403 if says("exceeded quota") => "QuotaExceeded",
        // A volume that cannot grow.
        403 if says("pvc can be resized") => "InvalidTemplate",
        403 if says("because it is being terminated") => "NamespaceTerminating",
        500 if says("failed calling webhook") => "WebhookFailed",
        _ if says("denied the request") || says("denied request:") => "Forbidden",
        401 | 403 => "Forbidden",
        400 | 413 | 422 => "InvalidTemplate",
        // A field that the schema does not know, or a quantity that is none, is a 500 of server-side apply.
        500 if says("failed to create typed patch object") || says("quantities must match") => "InvalidTemplate",
        _ => "ApplyFailed",
    }
}

/// The words of the API server, without the values that it quotes from a template: they may be secrets.
#[must_use]
pub fn said(cause: &Cause) -> String {
    let message = match cause {
        Cause::Refused { message, .. } | Cause::NameTaken { message } | Cause::NoAnswer { message } => message,
    };
    let mut text = String::new();
    let mut rest = message.as_str();
    while let Some((before, after)) = rest.split_once("value: \"") {
        text.push_str(before);
        text.push_str("value");
        rest = after_quote(after);
    }
    text.push_str(rest);
    cut(text.trim(), LONGEST)
}

/// What comes after the end of a quoted text.
fn after_quote(text: &str) -> &str {
    let mut escaped = false;
    for (place, character) in text.char_indices() {
        match character {
            '"' if !escaped => return text.get(place + 1..).unwrap_or_default(),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(code: u16, message: &str) -> Cause {
        Cause::Refused { code, message: message.to_owned() }
    }

    #[test]
    fn cause_is_named_by_its_code_and_its_text() {
        let resize =
            "persistentvolumeclaims \"demo-data\" is forbidden: only dynamically provisioned pvc can be resized";
        let typed = "failed to create typed patch object (default/demo; apps/v1, Kind=Deployment): .spec.bogus";
        for (code, message, wanted) in [
            (403, "configmaps \"demo\" is forbidden: exceeded quota: few", "QuotaExceeded"),
            (403, resize, "InvalidTemplate"),
            (403, "forbidden: unable to create new content because it is being terminated", "NamespaceTerminating"),
            (403, "deployments is forbidden: User \"system\" cannot patch", "Forbidden"),
            (403, "admission webhook \"a\" denied the request: no", "Forbidden"),
            (422, "ValidatingAdmissionPolicy 'a' with binding 'a' denied request: no", "Forbidden"),
            (500, "Internal error occurred: failed calling webhook \"a\": no endpoints", "WebhookFailed"),
            (500, typed, "InvalidTemplate"),
            (422, "Deployment.apps \"demo\" is invalid", "InvalidTemplate"),
            (400, "json: cannot unmarshal", "InvalidTemplate"),
            (500, "etcdserver: request timed out", "ApplyFailed"),
            (429, "slow down", "ApplyFailed"),
        ] {
            assert_eq!(reason(&refused(code, message)), wanted, "{code} {message}");
        }
        let message = || "x".to_owned();
        assert_eq!(reason(&Cause::NameTaken { message: message() }), "NameTaken");
        assert_eq!(reason(&Cause::NoAnswer { message: message() }), "ApplyFailed");
    }

    proptest! {
        /// A value of the template is in no message, whatever characters it has; the field is.
        #[test]
        fn message_names_the_field_and_quotes_no_value(secret in "s3[a-z\"\\\\]{0,9}cret") {
            let quoted = serde_json::to_string(&secret).unwrap();
            let text = format!("spec.template.env[0].value: Invalid value: {quoted}: must be shorter");
            let told = said(&refused(422, &text));
            prop_assert!(!told.contains("s3"), "{told}");
            prop_assert!(told.contains("spec.template.env[0]") && told.ends_with("must be shorter"), "{told}");
        }

        /// Whatever the API server says, what is told is bounded.
        #[test]
        fn message_is_cut_to_its_bound(text in ".{0,2000}") {
            prop_assert!(said(&refused(422, &text)).len() <= LONGEST);
        }
    }
}
