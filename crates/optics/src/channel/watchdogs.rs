//! What the watchdogs of both modules measure: the only numbers beside the detections that the protocol's ends see.

use types::network::{Direction, Link};
use types::quantum::{ReceiverReading, TransmitterReading};

use super::gate::Gate;
use crate::attack::{Attack, current_share};
use crate::model;

/// The watchdogs, each since its last reading.
pub(super) struct Watchdogs {
    receiver: ReceiverReading,
    receiver_from: u64,
    transmitter: TransmitterReading,
    transmitter_from: u64,
    /// Power at the transmitter without Eve.
    scattered_nw: f64,
    slots_per_us: u64,
    /// End of the microsecond that a click began, and clicks in it.
    microsecond_end: u64,
    clicks: u32,
}

impl Watchdogs {
    pub(super) fn new(link: &Link, mean_photons: f64) -> Self {
        Self {
            receiver: ReceiverReading::default(),
            receiver_from: 0,
            transmitter: TransmitterReading::default(),
            transmitter_from: 0,
            scattered_nw: scattered_nw(link, mean_photons),
            slots_per_us: super::slots(link.hardware.clock_hz * 1e-6).max(1),
            microsecond_end: 0,
            clicks: 0,
        }
    }

    /// Notes a click.
    #[inline]
    pub(super) fn click(&mut self, slot: u64, gate: &Gate) {
        if slot >= self.microsecond_end {
            (self.microsecond_end, self.clicks) = (slot.saturating_add(self.slots_per_us), 0);
        }
        self.clicks += 1;
        self.current(f64::from(self.clicks) * AVALANCHE_UA);
        self.receiver.doubles = self.receiver.doubles.saturating_add(u32::from(gate.is_double()));
        gate.add_to(&mut self.receiver.arrivals);
    }

    /// Notes what Eve's light did in these slots.
    pub(super) fn watch(&mut self, attack: Option<Attack>, from: u64, until: u64) {
        if until <= from {
            return;
        }
        let eve_nw = match attack {
            Some(Attack::TrojanLight { incoming_nw }) => incoming_nw.value(),
            _ => 0.0,
        };
        self.transmitter.incoming_nw = self.transmitter.incoming_nw.max(self.scattered_nw + eve_nw);
        if let Some(Attack::Blinding { light, photocurrent_ua, .. }) = attack {
            let share = current_share(light, from / self.slots_per_us, until / self.slots_per_us);
            self.current(photocurrent_ua.value() * share);
        }
    }

    #[inline]
    fn current(&mut self, ua: f64) {
        self.receiver.photocurrent_ua = self.receiver.photocurrent_ua.max(ua);
    }

    pub(super) fn take_receiver(&mut self, end: u64) -> ReceiverReading {
        let slots = end - core::mem::replace(&mut self.receiver_from, end);
        ReceiverReading { slots, ..core::mem::take(&mut self.receiver) }
    }

    pub(super) fn take_transmitter(&mut self, end: u64) -> TransmitterReading {
        let slots = end - core::mem::replace(&mut self.transmitter_from, end);
        TransmitterReading { slots, ..core::mem::take(&mut self.transmitter) }
    }
}

/// Power that comes in at a transmitter which nobody attacks: what the fibre throws back of its own pulses, and of
/// classical channels towards it what its filter lets through.
fn scattered_nw(link: &Link, mean_photons: f64) -> f64 {
    let hardware = &link.hardware;
    let sent_watt = hardware.clock_hz * mean_photons * model::photon_joule(hardware.wavelength_nm);
    let channels_watt = link.coexistence.as_ref().map_or(0.0, |coexistence| {
        let towards = coexistence.channels.iter().filter(|channel| channel.direction == Direction::Backward);
        let watt: f64 = towards.map(|channel| 1e-3 * libm::pow(10.0, channel.received_dbm / 10.0)).sum();
        watt * libm::pow(10.0, -coexistence.isolation_db / 10.0)
    });
    1e9 * (sent_watt * THROWN_BACK + channels_watt)
}

/// Photocurrent of one avalanche averaged over a microsecond: 125,000 elementary charges, an early quenched avalanche.
const AVALANCHE_UA: f64 = 0.02;
/// Share of its light that a long fibre throws back: Rayleigh scattering at 1,550 nm, about -32 dB.
const THROWN_BACK: f64 = 6e-4;
