//! Another network takes back keys that came from it and that no SAE has fetched.
//!
//! ```text
//! one site:      destroy all or nothing
//! several sites: all hold them -> all destroy          one cannot -> all release
//! ```
//! A hold ends by itself, and by a crash; then a site may say at the second step that an SAE has a key.

use std::collections::BTreeMap;

use crypto::rand_core::CryptoRng;
use types::id::{KeyId, RequestId, SaeId, SiteId};
use types::units::Time;

use super::supply::random_id;
use super::{Kme, RETRY_SOON, Timer};
use crate::api::{Output, Refusal};
use crate::config::{WITHDRAW_MAX, WITHDRAWN_MAX};
use crate::message::{Message, WithdrawState, WithdrawStep};

/// A withdrawal under way.
#[derive(Debug)]
pub(super) struct Withdrawal {
    request: RequestId,
    initiator: SaeId,
    ids: Vec<KeyId>,
    step: WithdrawStep,
    /// Sites and what they said to this step.
    sites: BTreeMap<SiteId, Option<WithdrawState>>,
    deadline: Time,
    due: Time,
}

impl Kme {
    pub(super) fn withdraw(
        &mut self,
        now: Time,
        request: RequestId,
        initiator: SaeId,
        targets: &[SaeId],
        ids: Vec<KeyId>,
        rng: &mut impl CryptoRng,
    ) {
        match self.withdrawable(targets, &ids) {
            Err(refusal) => self.journal.effect(Output::Withdrawn { id: request, result: Err(refusal) }),
            Ok(sites) => {
                let step = if sites.len() > 1 { WithdrawStep::Hold } else { WithdrawStep::Destroy };
                let sites = sites.into_iter().map(|site| (site, None)).collect();
                let (id, deadline) = (random_id(rng), now.after(self.config.supply_deadline));
                let withdrawal = Withdrawal { request, initiator, ids, step, sites, deadline, due: now };
                self.withdrawals.insert(id, withdrawal);
                self.withdraw_due(now, id);
            }
        }
    }

    fn withdrawable(&self, targets: &[SaeId], ids: &[KeyId]) -> Result<Vec<SiteId>, Refusal> {
        if !(1..=WITHDRAW_MAX).contains(&ids.len()) {
            return Err(Refusal::BadParameter { message: "a withdrawal shall name 1 to 1024 keys".to_owned() });
        }
        if self.is_importing(ids) || self.withdrawals.len() >= self.config.requests_max {
            return Err(Refusal::Busy { retry_after: RETRY_SOON });
        }
        let sites: Vec<SiteId> = self.places(targets)?.into_keys().collect();
        if sites.is_empty() {
            return Err(Refusal::BadParameter { message: "a withdrawal shall name its targets".to_owned() });
        }
        let reached = |site: &SiteId| *site == self.config.site || self.is_up(site);
        if sites.iter().all(reached) { Ok(sites) } else { Err(Refusal::PeerDown { retry_after: RETRY_SOON }) }
    }

    /// Asks the sites that have not answered this step, or gives up.
    pub(super) fn withdraw_due(&mut self, now: Time, id: KeyId) {
        let Some(withdrawal) = self.withdrawals.get_mut(&id) else { return };
        self.timers.remove(&(withdrawal.due, Timer::Withdraw(id)));
        if now >= withdrawal.deadline {
            return self.end_withdrawal(id, Err(Refusal::PeerDown { retry_after: RETRY_SOON }));
        }
        withdrawal.due = now.after(self.config.assign_resend).min(withdrawal.deadline);
        self.timers.insert((withdrawal.due, Timer::Withdraw(id)));
        let (step, initiator, ids) = (withdrawal.step, withdrawal.initiator.clone(), withdrawal.ids.clone());
        let open = withdrawal.sites.iter().filter(|(_, state)| state.is_none());
        let open: Vec<SiteId> = open.map(|(site, _)| site.clone()).collect();
        for site in open {
            if site == self.config.site {
                let state = self.withdraw_here(now, &site, id, step, &initiator, &ids);
                self.withdraw_answered(now, &site, id, step, state);
            } else {
                let (initiator, ids) = (initiator.clone(), ids.clone());
                self.send(&site, &Message::Withdraw { withdraw: id, step, initiator, ids });
            }
        }
    }

    pub(super) fn withdraw_arrived(
        &mut self,
        now: Time,
        from: &SiteId,
        withdraw: KeyId,
        step: WithdrawStep,
        initiator: &SaeId,
        ids: &[KeyId],
    ) {
        let state = self.withdraw_here(now, from, withdraw, step, initiator, ids);
        self.send(from, &Message::Withdrawn { withdraw, step, state });
    }

    /// Does one step at this site for the site that carried the keys here.
    fn withdraw_here(
        &mut self,
        now: Time,
        owner: &SiteId,
        withdraw: KeyId,
        step: WithdrawStep,
        initiator: &SaeId,
        ids: &[KeyId],
    ) -> WithdrawState {
        if self.withdrawn.contains(&withdraw) {
            // Our answer was lost.
            return WithdrawState::Done;
        }
        if step == WithdrawStep::Release {
            self.deliveries.release(withdraw);
            return WithdrawState::Done;
        }
        let Some(found) = self.deliveries.withdrawable(owner, initiator, ids) else { return WithdrawState::Delivered };
        if found.is_empty() {
            return WithdrawState::NotKnown;
        }
        if step == WithdrawStep::Hold {
            let until = now.after(self.config.supply_deadline * 2);
            self.deliveries.withhold(now, withdraw, &found, until);
        } else {
            let gone: Vec<_> = found.into_iter().filter_map(|id| self.deliveries.destroy(id)).collect();
            self.destroyed(&gone, "withdrawn by the other network");
            self.withdrawn.push_back(withdraw);
            if self.withdrawn.len() > WITHDRAWN_MAX {
                self.withdrawn.pop_front();
            }
        }
        WithdrawState::Done
    }

    pub(super) fn withdraw_answered(
        &mut self,
        now: Time,
        from: &SiteId,
        id: KeyId,
        step: WithdrawStep,
        state: WithdrawState,
    ) {
        let Some(withdrawal) = self.withdrawals.get_mut(&id).filter(|withdrawal| withdrawal.step == step) else {
            return;
        };
        let Some(said) = withdrawal.sites.get_mut(from) else { return };
        *said = Some(state);
        let said: Vec<WithdrawState> = withdrawal.sites.values().copied().flatten().collect();
        if said.len() < withdrawal.sites.len() {
            return;
        }
        let result = if said.contains(&WithdrawState::Delivered) {
            Err(Refusal::KeyDelivered)
        } else if said.contains(&WithdrawState::Done) {
            Ok(())
        } else {
            Err(Refusal::KeysNotFound)
        };
        if step == WithdrawStep::Hold && result.is_ok() {
            withdrawal.step = WithdrawStep::Destroy;
            withdrawal.sites.values_mut().for_each(|said| *said = None);
            self.withdraw_due(now, id);
        } else {
            self.end_withdrawal(id, result);
        }
    }

    fn end_withdrawal(&mut self, id: KeyId, result: Result<(), Refusal>) {
        let Some(withdrawal) = self.withdrawals.remove(&id) else { return };
        self.timers.remove(&(withdrawal.due, Timer::Withdraw(id)));
        if result.is_err() && withdrawal.sites.len() > 1 {
            self.deliveries.release(id);
            let here = self.config.site.clone();
            for site in withdrawal.sites.keys().filter(|site| **site != here) {
                let (initiator, ids) = (withdrawal.initiator.clone(), withdrawal.ids.clone());
                let step = WithdrawStep::Release;
                self.send(site, &Message::Withdraw { withdraw: id, step, initiator, ids });
            }
        }
        self.journal.effect(Output::Withdrawn { id: withdrawal.request, result });
    }
}
