//! From durable records to a core: everything undecided is done again from its start.

use crypto::record::Record;
use types::units::Time;

use super::record::{self, Stored};
use super::{Config, Interwork};
use crate::Error;

pub(super) fn restore(now: Time, config: Config, records: Vec<Record>) -> Result<Interwork, Error> {
    let mut core = Interwork::empty(config);
    let mut jobs = Vec::new();
    for stored in records {
        match record::decode(stored)? {
            // Whether it was sent before is not known: it counts as sent.
            Stored::Export { export, parties, keys } => core.restore_export(now, export, parties, keys),
            Stored::Sent { export, parties, fate, ids } => core.restore_sent(now, export, parties, fate, ids),
            Stored::Import { import, parties, callback, keys } => {
                core.restore_import(now, import, parties, callback, keys);
            }
            Stored::Known { key, parties, state, check } => core.restore_known(now, key, parties, state, check),
            Stored::VoidJob { job, parties, callback, ids } => jobs.push((job, parties, callback, ids)),
            Stored::AckPost { post, peer, path, acks } => core.restore_acks(now, post, &peer, path, acks),
            Stored::VoidPost { post, parties, ids } => core.restore_void(now, post, parties, ids),
        }
    }
    // They look at all the rest, so they wait for the first moment after it.
    for (job, parties, callback, ids) in jobs {
        core.restore_void_job(now, job, parties, callback, ids);
    }
    core.journal.close();
    Ok(core)
}
