//! Maintenance windows: times in which a runtime is held, however its desiredState stands.

#![expect(unreachable_pub, reason = "kube's derive makes the types it derives public in a private module")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::patterns::{START, TIME_ZONE};

/// A time in which the runtime is paused or stopped: each time that `cron` comes due, or once from `start`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.cron) != has(self.start)")
    .message("maintenanceWindows: give exactly one of cron and start"))]
#[x_kube(validation = Rule::new("self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
    .message("maintenanceWindows.name: lower-case letters, digits and hyphens, such as nightly"))]
#[x_kube(validation = Rule::new("!has(self.cron) || self.cron.matches('^ *[^ ]+( +[^ ]+){4} *$')")
    .message("maintenanceWindows.cron: give five fields: minute, hour, day of month, month, day of week"))]
#[x_kube(validation = Rule::new(
    "!has(self.start) || self.start.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?$')")
    .message("maintenanceWindows.start: write 2027-01-31T22:00:00Z, or without an offset and with a timeZone"))]
#[x_kube(validation = Rule::new(
    "!has(self.start) || !has(self.timeZone) || !self.start.matches('(Z|[+-][0-9]{2}:[0-9]{2})$')")
    .message("maintenanceWindows.timeZone: start has an offset already: leave out one of them"))]
pub struct MaintenanceWindow {
    /// The window's name, shown in status.source.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// When it begins, again and again: minute, hour, day of month, month, day of week, in timeZone.
    /// A time that daylight saving leaves out comes right after the gap; one that comes twice counts once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 100))]
    pub cron: Option<String>,

    /// When it begins, once: 2027-01-31T22:00:00Z, or without the offset in timeZone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 16, max = 25), regex(pattern = START))]
    pub start: Option<String>,

    /// The time zone of cron and start, such as Europe/Berlin. UTC if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = TIME_ZONE))]
    pub time_zone: Option<String>,

    /// How long it lasts, in seconds that pass, whatever the clocks on the wall do: at most 31 days.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub duration_seconds: i32,

    /// What the runtime is held in.
    #[serde(default)]
    pub state: HeldState,

    /// Why, for people; shown in the conditions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub reason: String,
}

/// What a window or a freeze holds runtimes in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum HeldState {
    /// Nothing runs and nothing will start.
    #[default]
    Paused,
    /// As paused, and the pods are taken away once drained.
    Stopped,
}
