//! Patterns of what Kubernetes takes as names, keys and values. What does not match one could never work: it is refused
//! when it is written, with the field's name, and not found out later.

/// The name of a ConfigMap, a Secret and most other objects: a DNS subdomain of RFC 1123.
pub(crate) const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// The same, or nothing: a claim of no class is bound to a volume that somebody made for it.
pub(crate) const SUBDOMAIN_OR_EMPTY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$";

/// The name of a container: a DNS label of RFC 1123.
pub(crate) const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// The name of a Service: a DNS label of RFC 1035, which begins with a letter.
pub(crate) const SERVICE: &str = r"^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// A key of a ConfigMap or Secret, which becomes a file: neither `.` nor anything that begins with `..`.
pub(crate) const DATA_KEY: &str = r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$";

/// The key of a label, with a prefix or without. It stands in a rule too, where a backslash would have to be doubled.
pub(crate) const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";

/// The value of a label.
pub(crate) const LABEL_VALUE: &str = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";

/// A quantity above zero.
pub(crate) const SIZE: &str = r"^([0-9]*[1-9][0-9]*(\.[0-9]+)?|[0-9]+\.[0-9]*[1-9][0-9]*)(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";

/// A moment of RFC 3339. The API server's own check of the format lets pass offsets that no clock has, and any
/// character before a fraction.
pub(crate) const MOMENT: &str = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// A moment, or a time on the clocks of a zone; seconds may be left out.
pub(crate) const START: &str = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9](:([0-5][0-9]|60))?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$";

/// What names of the IANA time zone database are made of.
pub(crate) const TIME_ZONE: &str = r"^[A-Za-z][-+A-Za-z0-9_/]*$";

#[cfg(test)]
#[path = "patterns_tests.rs"]
mod tests;
