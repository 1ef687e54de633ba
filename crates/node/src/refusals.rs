//! Who was turned away, and why: few entries in the audit log however many refusals there are, and counts for metrics.
//!
//! ```text
//! first refusal of a caller for a reason ──► an entry at once
//! more of the same within a minute ────────► one entry with their number, every minute until there are none
//! ```
//! Callers without a certificate are known by the part of the network that they come from. Beyond a number of callers
//! at once the rest are counted together. No refusal is left out of the numbers; what was counted since the last entry
//! is lost if the process is killed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use types::event::Event;
use types::id::SaeId;
use types::units::Time;

use crate::tls::Identity;

/// Handle to the counts of a site; cheap to clone.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<State>>);

/// Who was refused.
#[derive(Clone, Debug)]
pub enum Who {
    /// Whom a verified certificate names.
    Caller(Identity),
    /// Somebody without.
    Address(IpAddr),
}

#[derive(Default)]
struct State {
    open: BTreeMap<(String, String), Open>,
    ready: Vec<Event>,
    handshakes: BTreeMap<String, u64>,
    requests: BTreeMap<(String, String), u64>,
}

/// Refusals of one caller for one reason that are counted.
struct Open {
    since: Time,
    more: u64,
}

impl Refusals {
    /// Notes a refusal for the audit log.
    pub fn note(&self, now: Time, who: &Who, reason: &str) {
        let mut state = self.state();
        let key = (who.name(), reason.to_owned());
        if let Some(open) = state.open.get_mut(&key) {
            open.more += 1;
            return;
        }
        if state.open.len() < OPEN_MAX {
            state.ready.push(who.first(reason));
            state.open.insert(key, Open { since: now, more: 0 });
            return;
        }
        let room = state.open.len() < 2 * OPEN_MAX || state.open.contains_key(&(OTHERS.to_owned(), reason.to_owned()));
        let reason = if room { reason } else { OTHERS };
        let key = (OTHERS.to_owned(), reason.to_owned());
        state.open.entry(key).or_insert(Open { since: now, more: 0 }).more += 1;
    }

    /// Entries that are due.
    #[must_use]
    pub fn due(&self, now: Time) -> Vec<Event> {
        self.entries(now, |open| now.since(open.since) >= INTERVAL)
    }

    /// Entries of everything that was counted, for a clean stop.
    #[must_use]
    pub fn close(&self, now: Time) -> Vec<Event> {
        self.entries(now, |_| true)
    }

    fn entries(&self, now: Time, is_due: impl Fn(&Open) -> bool) -> Vec<Event> {
        let mut state = self.state();
        let mut events = std::mem::take(&mut state.ready);
        state.open.retain(|(who, reason), open| {
            if !is_due(open) {
                return true;
            }
            let (times, seconds) = (open.more, now.since(open.since).as_secs());
            if times == 0 {
                return false;
            }
            events.push(Event::RefusalsCounted { who: who.clone(), reason: reason.clone(), times, seconds });
            *open = Open { since: now, more: 0 };
            true
        });
        events
    }

    /// Counts how a TLS handshake ended.
    pub fn handshake(&self, ended: &'static str) {
        *self.state().handshakes.entry(ended.to_owned()).or_default() += 1;
    }

    /// Counts a request that was refused. Both are fixed words, so there are few of them.
    pub fn request(&self, interface: &'static str, reason: &str) {
        *self.state().requests.entry((interface.to_owned(), reason.to_owned())).or_default() += 1;
    }

    /// Handshakes by how they ended.
    #[must_use]
    pub fn handshakes(&self) -> BTreeMap<String, u64> {
        self.state().handshakes.clone()
    }

    /// Refused requests by interface and reason.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<(String, String), u64> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Who {
    fn name(&self) -> String {
        match self {
            Self::Caller(Identity::Sae(sae)) => format!("sae {sae}"),
            Self::Caller(Identity::Kme(site)) => format!("kme {site}"),
            Self::Address(address) => format!("address {}", prefix(*address)),
        }
    }

    fn first(&self, reason: &str) -> Event {
        let reason = reason.to_owned();
        match self {
            Self::Caller(Identity::Sae(sae)) => Event::RequestRefused { sae: sae.clone(), reason },
            _ => Event::RefusalsCounted { who: self.name(), reason, times: 1, seconds: 0 },
        }
    }
}

impl From<SaeId> for Who {
    fn from(sae: SaeId) -> Self {
        Self::Caller(Identity::Sae(sae))
    }
}

/// The part of the network that an address lies in: 24 bits of IPv4, 64 of IPv6.
fn prefix(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", std::net::Ipv6Addr::from([a, b, c, d, 0, 0, 0, 0]))
        }
    }
}

/// What refusals are counted over.
const INTERVAL: Duration = Duration::from_secs(60);
/// Callers and reasons that are told apart at once.
const OPEN_MAX: usize = 64;
const OTHERS: &str = "others";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    fn sae(name: &str) -> Who {
        SaeId::new(name).unwrap().into()
    }

    fn times(events: &[Event]) -> u64 {
        let times = |event: &Event| match event {
            Event::RequestRefused { .. } => 1,
            Event::RefusalsCounted { times, .. } => *times,
            _ => 0,
        };
        events.iter().map(times).sum()
    }

    #[test]
    fn ten_thousand_refusals_are_a_few_entries_with_their_exact_number() {
        let refusals = Refusals::default();
        let mut entries = Vec::new();
        for n in 0..10_000_u64 {
            // Three a second: 56 minutes.
            refusals.note(at(n / 3), &sae("a"), "no");
            let due = refusals.due(at(n / 3));
            assert!(n > 0 || matches!(due.as_slice(), [Event::RequestRefused { .. }]), "the first at once");
            entries.extend(due);
        }
        entries.extend(refusals.close(at(4_000)));
        assert_eq!(times(&entries), 10_000);
        assert!(entries.len() <= 58, "{}", entries.len());
        assert!(refusals.close(at(4_000)).is_empty());
    }

    #[test]
    fn after_a_quiet_minute_the_next_is_told_at_once_again() {
        let refusals = Refusals::default();
        refusals.note(at(0), &sae("a"), "no");
        assert_eq!(refusals.due(at(0)).len(), 1);
        refusals.note(at(1), &sae("a"), "no");
        refusals.note(at(2), &sae("a"), "other");
        refusals.note(at(2), &Who::Address("10.1.2.3".parse().unwrap()), "no");
        assert_eq!(refusals.due(at(2)).len(), 2, "another reason, another caller");
        let counted = Event::RefusalsCounted { who: "sae a".into(), reason: "no".into(), times: 1, seconds: 60 };
        assert_eq!(refusals.due(at(60)), [counted]);
        assert!(refusals.due(at(120)).is_empty());
        refusals.note(at(121), &sae("a"), "no");
        assert!(matches!(refusals.due(at(121)).as_slice(), [Event::RequestRefused { .. }]));
    }

    #[test]
    fn many_callers_do_not_fill_memory_or_disk() {
        let refusals = Refusals::default();
        let mut entries = Vec::new();
        for n in 0..10_000_u32 {
            refusals.note(at(1), &Who::Address(IpAddr::V4((n << 8).into())), &format!("reason {}", n % 500));
        }
        entries.extend(refusals.due(at(1)));
        assert_eq!(entries.len(), OPEN_MAX);
        assert!(refusals.state().open.len() <= 2 * OPEN_MAX + 1);
        entries.extend(refusals.due(at(61)));
        assert_eq!(times(&entries), 10_000);
        assert!(refusals.due(at(121)).is_empty() && refusals.state().open.is_empty());
    }

    #[test]
    fn addresses_are_told_by_their_network() {
        for (address, expected) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(prefix(address.parse().unwrap()), expected);
        }
    }
}
