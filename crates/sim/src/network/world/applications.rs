//! The applications: they ask for keys, fetch them, try to steal them, and the auditor looks at what they get.

use kms::{Input, Refusal, SupplyReply, SupplyRequest};
use types::id::{KeyId, RequestId, SaeId, SiteId};

use super::{Happening, World};
use crate::network::audit::Supply;

/// What an SAE asked.
pub(super) enum Asked {
    Encrypt { master: SaeId, slave: SaeId, number: u32, size_bits: u32 },
    Decrypt { master: SaeId, slave: SaeId, ids: Vec<KeyId>, fair: bool },
}

impl World {
    pub(super) fn ask(&mut self) {
        if self.asking {
            self.later(5, 150, Happening::Ask);
            let saes: Vec<SaeId> = self.directory.keys().cloned().collect();
            let (master, slave) = (self.one_of(&saes), self.one_of(&saes));
            let number = self.one_of(&[1, 1, 1, 2, 3, 5, 20]);
            let size_bits = self.one_of(&[64, 128, 256, 256, 256, 384, 1_024]);
            let request = SupplyRequest::Encrypt {
                slave: slave.clone(),
                additional: Vec::new(),
                number,
                size_bits: Some(size_bits),
                wishes: kms::Wishes::default(),
            };
            self.request(master.clone(), request, Asked::Encrypt { master, slave, number, size_bits });
        }
    }

    /// A slave, or a thief if not `fair`, asks for keys.
    pub(super) fn fetch(&mut self, master: SaeId, slave: SaeId, ids: Vec<KeyId>, fair: bool) {
        let site = self.directory.get(&slave).expect("all SAEs are known");
        if fair && self.sites.get(site).is_none_or(|state| state.kme.is_none()) {
            return self.later(100, 1_000, Happening::Fetch { master, slave, ids, fair });
        }
        let request = SupplyRequest::Decrypt { master: master.clone(), ids: ids.clone() };
        self.request(slave.clone(), request, Asked::Decrypt { master, slave, ids, fair });
    }

    fn request(&mut self, sae: SaeId, request: SupplyRequest, asked: Asked) {
        let site = self.directory.get(&sae).expect("all SAEs are known").clone();
        if self.sites.get(&site).is_some_and(|state| state.kme.is_some()) {
            self.requests += 1;
            let id = RequestId(self.requests);
            self.asked.insert(id, (site.clone(), asked));
            self.input(&site, Input::Request { id, sae, request });
        }
    }

    pub(super) fn reply(&mut self, site: &SiteId, id: RequestId, result: Result<SupplyReply, Refusal>) {
        let Some((at, asked)) = self.asked.remove(&id) else {
            return self.audit.violations.push(format!("a second answer to request {id}"));
        };
        self.audit.require(at == *site, || "an answer from another site".to_owned());
        match (asked, result) {
            (Asked::Encrypt { master, slave, number, size_bits }, Ok(SupplyReply::Keys(keys))) => {
                self.report.supplied += keys.len() as u64;
                let holder = self.directory.get(&slave).expect("all SAEs are known");
                let disk = |site: &SiteId| &self.sites.get(site).expect("all sites are there").disk;
                let (owner, holder) = ((site, disk(site)), (holder, disk(holder)));
                let supply = Supply { master: &master, slave: &slave, owner, holder, number, size_bits };
                self.audit.supplied(&supply, &keys);
                self.fetch_later(&master, &slave, keys.iter().map(|key| key.id).collect());
            }
            (Asked::Decrypt { master, slave, fair, .. }, Ok(SupplyReply::Keys(keys))) => {
                self.report.delivered += keys.len() as u64;
                self.audit.require(fair, || format!("{slave} got keys that are not for it"));
                let disk = &self.sites.get(site).expect("all sites are there").disk;
                self.audit.delivered(&master, &slave, &keys, disk);
            }
            (Asked::Decrypt { ids, fair: true, .. }, Err(refusal)) => {
                let fetched =
                    |id| self.audit.supplied.get(id).is_some_and(|supplied| supplied.delivered || supplied.in_doubt);
                let fetched = ids.iter().any(fetched);
                self.audit.require(fetched, || format!("keys that were supplied are refused: {refusal}"));
            }
            (_, Err(_)) => self.report.refused += 1,
            (_, Ok(SupplyReply::Status(_))) => self.audit.violations.push("a status that nobody asked".to_owned()),
        }
    }

    /// Most slaves fetch soon, some twice, some not at all; thieves try too.
    fn fetch_later(&mut self, master: &SaeId, slave: &SaeId, ids: Vec<KeyId>) {
        let fetch = |slave: &SaeId, master: &SaeId, ids: Vec<KeyId>, fair| Happening::Fetch {
            master: master.clone(),
            slave: slave.clone(),
            ids,
            fair,
        };
        match self.below(10) {
            0 => {}
            1 => {
                let saes: Vec<SaeId> = self.directory.keys().filter(|sae| *sae != slave).cloned().collect();
                let thief = self.one_of(&saes);
                self.later(0, 500, fetch(&thief, master, ids.clone(), false));
                let mut more = ids.clone();
                more.push(KeyId::from_random([0; 16]));
                self.later(0, 500, fetch(slave, master, more, false));
                self.later(500, 3_000, fetch(slave, master, ids, true));
            }
            2 => {
                self.later(0, 3_000, fetch(slave, master, ids.clone(), true));
                self.later(0, 3_000, fetch(slave, master, ids, true));
            }
            _ => self.later(0, 3_000, fetch(slave, master, ids, true)),
        }
    }
}
