//! Owns the rules that were added to released fields. Each refuses only what never worked, when it is written; an object
//! that has such a value already can be changed and its status written, as the API server holds against an update no
//! rule of a field that stays as it is, and the rules of a whole object are for new ones.

/// A change that the gate lets pass.
struct Tightened {
    /// The plural of the kind.
    resource: &'static str,
    /// The fields that have it.
    fields: &'static [&'static str],
    /// The change, word for word as the gate tells it: another one is refused.
    change: &'static str,
    /// Why what it refuses never worked.
    because: &'static str,
}

const RUNTIMES: &str = "agentruntimes";
const FREEZES: &str = "agentfreezes";

const ALL: &[Tightened] = &[
    Tightened {
        resource: RUNTIMES,
        fields: &["the object"],
        change: "a new rule: oldSelf.hasValue() || self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        because: "the API server refuses its Services: the object was Stalled for good",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["the object"],
        change: "a new rule: oldSelf.hasValue() || !self.metadata.name.endsWith('-pods')",
        because: "two objects, a and a-pods, took the Service a-pods from each other",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["the object"],
        change: "a new rule: oldSelf.hasValue() || !(self.metadata.name in ['default', 'kubernetes'])",
        because: "the ServiceAccount default is each namespace's, the Service kubernetes the API server's: neither can be a child",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["spec.agent.configMapRef.name", "spec.storage.postgres.urlSecretRef.name"],
        change: r"a new pattern: ^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        because: "no ConfigMap or Secret can have such a name",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["spec.agent.configMapRef.key", "spec.storage.postgres.urlSecretRef.key"],
        change: r"a new pattern: ^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$",
        because: "no ConfigMap or Secret can have such a key",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["spec.storage.volumeClaim.storageClassName"],
        change: r"a new pattern: ^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$",
        because: "no StorageClass can have such a name",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["spec.storage.volumeClaim.size"],
        change: r"a new pattern: ^([0-9]*[1-9][0-9]*(\.[0-9]+)?|[0-9]+\.[0-9]*[1-9][0-9]*)(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
        because: "the API server refuses a claim of no size",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["spec.lifecycle.prePause.exec.container", "spec.lifecycle.postResume.exec.container"],
        change: "a new pattern: ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        because: "no container can have such a name",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["spec.lifecycle.prePause.exec.command", "spec.lifecycle.postResume.exec.command"],
        change: "a new rule: size(self) == 0 || self[0] != ''",
        because: "there is no program without a name",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["spec.maintenanceWindows[].start"],
        change: r"a new pattern: ^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9](:([0-5][0-9]|60))?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$",
        because: "the operator could not read such a time, and the object was Stalled",
    },
    Tightened {
        resource: RUNTIMES,
        fields: &["spec.maintenanceWindows[].timeZone"],
        change: "a new pattern: ^[A-Za-z][-+A-Za-z0-9_/]*$",
        because: "no time zone has such a name, and the object was Stalled",
    },
    Tightened {
        resource: FREEZES,
        fields: &["spec.expiresAt"],
        change: r"a new pattern: ^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
        because: "the operator could not read such a time, and then read no freeze at all",
    },
    Tightened {
        resource: FREEZES,
        fields: &["spec.namespaceSelector.matchLabels", "spec.runtimeSelector.matchLabels"],
        change: "a new rule: self.all(key, key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
        because: "no object can have such a label: the freeze held nothing",
    },
    Tightened {
        resource: FREEZES,
        fields: &["spec.namespaceSelector.matchExpressions[].key", "spec.runtimeSelector.matchExpressions[].key"],
        change: "a new pattern: ^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        because: "no object can have such a label: what was meant was not selected",
    },
    Tightened {
        resource: FREEZES,
        fields: &[
            "spec.namespaceSelector.matchLabels[]",
            "spec.runtimeSelector.matchLabels[]",
            "spec.namespaceSelector.matchExpressions[].values[]",
            "spec.runtimeSelector.matchExpressions[].values[]",
        ],
        change: "a new pattern: ^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        because: "no label can have such a value: what was meant was not selected",
    },
];

/// Why a change that the gate found breaks nobody; none if it is not one of these.
pub(crate) fn reason(resource: &str, found: &str) -> Option<&'static str> {
    let told = |field: &str| found.strip_prefix(field)?.strip_prefix(": ");
    let meets = |rule: &&Tightened| {
        rule.resource == resource && rule.fields.iter().any(|field| told(field) == Some(rule.change))
    };
    ALL.iter().find(meets).map(|rule| rule.because)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;
    use crate::{RELEASED, gate, root};

    /// What changed since the first release, as `resource` and the gate's words.
    fn since_the_first() -> Vec<(String, String)> {
        let mut all = Vec::new();
        for definition in crds::definitions() {
            let plural = definition.spec.names.plural.clone();
            let text = fs::read_to_string(root().join(format!("{RELEASED}/0.1.0/{plural}.yaml"))).unwrap();
            let old: Value = serde_saphyr::from_str(&text).unwrap();
            let found = gate::breaks(&old, &serde_json::to_value(&definition).unwrap());
            all.extend(found.into_iter().map(|what| (plural.clone(), what)));
        }
        all
    }

    #[test]
    fn every_rule_in_the_list_is_one_of_the_definitions_and_has_a_reason() {
        let found = since_the_first();
        for rule in ALL {
            assert!(rule.because.len() > 20, "{}", rule.change);
            for field in rule.fields {
                let told = (rule.resource.to_owned(), format!("{field}: {}", rule.change));
                assert!(found.contains(&told), "{told:?} is in no definition: take it out of the list");
            }
        }
        let unknown: Vec<_> = found.iter().filter(|(resource, what)| reason(resource, what).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn a_rule_that_is_not_in_the_list_word_for_word_is_refused() {
        let (resource, known) = since_the_first().swap_remove(0);
        assert!(reason(&resource, &known).is_some());
        assert_eq!(reason(&resource, &format!("{known} ")), None);
        assert_eq!(reason(&resource, &known[1..]), None);
        assert_eq!(reason("others", &known), None);
        for what in
            ["spec.replicas: maximum is tighter", "spec.agent is removed", "spec: a new rule: self.replicas < 5"]
        {
            assert_eq!(reason(RUNTIMES, what), None, "{what}");
        }
    }

    /// A rule of a whole object is held against every write of it, of status too.
    #[test]
    fn rules_of_whole_objects_in_the_list_are_for_new_ones() {
        for rule in ALL.iter().filter(|rule| rule.fields.iter().any(|field| matches!(*field, "the object" | "spec"))) {
            assert!(rule.change.starts_with("a new rule: oldSelf.hasValue() || "), "{}", rule.change);
        }
    }
}
