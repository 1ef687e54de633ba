//! What a controller is told of: the difference between two trees, and new alarms of links.

use std::collections::BTreeMap;

use etsi::etsi015::{Alarm, AlarmSubject, AppStatus, LinkStatus, LinkType, Node, Notification, Performance, Severity};
use types::id::Uuid;

/// What was said already.
#[derive(Default)]
pub(super) struct Told {
    apps: BTreeMap<Uuid, AppStatus>,
    links: BTreeMap<Uuid, (LinkStatus, Performance)>,
    alarms: BTreeMap<Uuid, String>,
}

impl Told {
    /// Compares with what was said last; `alarms` is each link's last alarm.
    pub(super) fn changes(&mut self, tree: &Node, alarms: &BTreeMap<Uuid, String>) -> Vec<Notification> {
        let mut out = Vec::new();
        self.links(tree, &mut out);
        self.apps(tree, &mut out);
        for (link, message) in alarms.iter().filter(|(link, message)| self.alarms.get(link) != Some(message)) {
            let (subject, message) = (AlarmSubject::Link(*link), message.clone());
            out.push(Notification::Alarm(Alarm { subject, message, severity: Severity::Major }));
        }
        self.alarms.clone_from(alarms);
        out
    }

    fn links(&mut self, tree: &Node, out: &mut Vec<Notification>) {
        let mut links = BTreeMap::new();
        for link in &tree.qkd_links.qkd_link {
            let (qkdl_id, now) = (link.qkdl_id, &link.qkdl_performance);
            let runs = |status| matches!(status, LinkStatus::Active | LinkStatus::Pending);
            let (before, mut said) = match self.links.remove(&qkdl_id) {
                Some((status, performance)) => (Some(status), performance),
                None => (None, Performance::default()),
            };
            if before.is_some_and(runs) && !runs(link.qkdl_status) {
                out.push(Notification::LinkDown { qkdl_id });
            }
            if link.qkdl_type == LinkType::Physical && now.differs_from(&said) {
                let overloaded = |performance: &Performance| {
                    performance.eskr == Some(0) && performance.skr.is_some_and(|skr| skr > 0)
                };
                let performance = now.clone();
                out.push(if overloaded(now) && !overloaded(&said) {
                    Notification::LinkOverloaded { qkdl_id, performance }
                } else {
                    Notification::LinkPerfUpdate { qkdl_id, performance }
                });
                said = now.clone();
            }
            links.insert(qkdl_id, (link.qkdl_status, said));
        }
        // A path that is gone: its key is relayed another way or not at all.
        for (qkdl_id, (status, _)) in std::mem::replace(&mut self.links, links) {
            if matches!(status, LinkStatus::Active | LinkStatus::Pending) {
                out.push(Notification::LinkDown { qkdl_id });
            }
        }
    }

    fn apps(&mut self, tree: &Node, out: &mut Vec<Notification>) {
        let mut apps = BTreeMap::new();
        for app in &tree.qkd_applications.qkd_app {
            let (app_id, now) = (app.app_id, app.app_status);
            let before = self.apps.get(&app_id).copied();
            if now == AppStatus::On && before != Some(AppStatus::On) {
                out.push(Notification::ApplicationNew(Box::new(app.clone())));
            }
            if now != AppStatus::On && before == Some(AppStatus::On) {
                out.push(Notification::ApplicationDisconnected { app_id });
            }
            apps.insert(app_id, now);
        }
        self.apps = apps;
    }
}
