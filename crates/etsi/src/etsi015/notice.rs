//! Notifications, and the envelope in which RESTCONF streams them (RFC 8040, 6.4, in JSON as RFC 7951 says).

use serde::Serialize;
use serde_json::{Value, json};
use types::id::Uuid;

use super::tree::{Application, Performance, PhysicalPerformance};
use super::{MODULE, TYPES_MODULE};

/// What a node tells its controller.
#[derive(Clone, Debug, PartialEq)]
pub enum Notification {
    /// `sdqkdn_application_new`: a pair of SAEs took its first key, or its first after a while.
    ApplicationNew(Box<Application>),
    /// `sdqkdn_application_disconnected`: a pair of SAEs took no key for a while.
    ApplicationDisconnected {
        /// Which.
        app_id: Uuid,
    },
    /// `sdqkdn_link_down`: a link makes no key any more.
    LinkDown {
        /// Which.
        qkdl_id: Uuid,
    },
    /// `sdqkdn_link_perf_update`: figures of a link changed.
    LinkPerfUpdate {
        /// Which.
        qkdl_id: Uuid,
        /// Its figures now.
        performance: Performance,
    },
    /// `sdqkdn_link_overloaded`: the network itself consumes all key of a link.
    LinkOverloaded {
        /// Which.
        qkdl_id: Uuid,
        /// Its figures now.
        performance: Performance,
    },
    /// `alarm`: something is wrong.
    Alarm(Alarm),
}

/// An alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What it is about.
    pub subject: AlarmSubject,
    /// What is wrong, for people.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmSubject {
    /// A link.
    Link(Uuid),
    /// An interface.
    Interface(u32),
    /// An application.
    Application(Uuid),
}

/// How bad an alarm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Keys are not made or not served.
    Major,
    /// Keys are still made and served.
    Minor,
}

impl Notification {
    fn name(&self) -> &'static str {
        match self {
            Self::ApplicationNew(_) => "sdqkdn_application_new",
            Self::ApplicationDisconnected { .. } => "sdqkdn_application_disconnected",
            Self::LinkDown { .. } => "sdqkdn_link_down",
            Self::LinkPerfUpdate { .. } => "sdqkdn_link_perf_update",
            Self::LinkOverloaded { .. } => "sdqkdn_link_overloaded",
            Self::Alarm(_) => "alarm",
        }
    }

    fn content(&self) -> Value {
        match self {
            Self::ApplicationNew(app) => json!({ "qkd_app": app }),
            Self::ApplicationDisconnected { app_id } => json!({ "qkd_app": { "app_id": app_id } }),
            Self::LinkDown { qkdl_id } => json!({ "qkd_link": { "qkdl_id": qkdl_id } }),
            Self::LinkPerfUpdate { qkdl_id, performance } | Self::LinkOverloaded { qkdl_id, performance } => {
                json!({ "qkd_link": { "qkdl_id": qkdl_id, "performance": performance } })
            }
            Self::Alarm(Alarm { subject, message, severity }) => {
                let (name, value) = match subject {
                    AlarmSubject::Link(id) => ("link", json!({ "qkdl_id": id })),
                    AlarmSubject::Interface(id) => ("interface", json!({ "qkdi_id": id })),
                    AlarmSubject::Application(id) => ("application", json!({ "app_id": id })),
                };
                let severity = match severity {
                    Severity::Major => "MAJOR",
                    Severity::Minor => "MINOR",
                };
                json!({ name: value, "message": message, "severity": format!("{TYPES_MODULE}:{severity}") })
            }
        }
    }
}

impl Performance {
    /// Whether a controller should hear of the change: a rate moved by more than a tenth, an error rate by more than
    /// two thousandths, or a figure came or went.
    #[must_use]
    pub fn differs_from(&self, before: &Self) -> bool {
        let moved = |now: Option<u32>, before: Option<u32>| match (now, before) {
            (Some(now), Some(before)) => u64::from(now.abs_diff(before)) * 10 > u64::from(before),
            (now, before) => now != before,
        };
        let value =
            |performance: &Self, index: usize| performance.phys_perf.get(index).map(PhysicalPerformance::thousandths);
        let physical = |index| match (value(self, index), value(before, index)) {
            (Some(now), Some(before)) => now.abs_diff(before) > 2,
            (now, before) => now != before,
        };
        moved(self.skr, before.skr)
            || moved(self.eskr, before.eskr)
            || moved(self.expected_consumption, before.expected_consumption)
            || (0..self.phys_perf.len().max(before.phys_perf.len())).any(physical)
    }
}

impl PhysicalPerformance {
    fn thousandths(&self) -> i64 {
        self.value.0
    }
}

/// A notification as it goes out on the stream; `time` is RFC 3339.
#[must_use]
pub fn envelope(time: &str, notification: &Notification) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(rename = "eventTime")]
        time: &'a str,
        #[serde(flatten)]
        content: serde_json::Map<String, Value>,
    }
    let name = format!("{MODULE}:{}", notification.name());
    let content = serde_json::Map::from_iter([(name, notification.content())]);
    json!({ "ietf-restconf:notification": Body { time, content } }).to_string()
}
