//! Another root key: all KEKs are sealed anew in one transaction.

use super::open::sealed_mark;
use super::seal::{open_kek, seal_kek};
use super::{Database, schema};
use crate::{Error, RootKey};

impl Database {
    /// Changes the root key.
    pub(crate) fn rekey(&mut self, new: RootKey) -> Result<(), Error> {
        let mut keks = Vec::new();
        for (id, class, sealed) in self.session.keks()? {
            // One that does not open is of damaged rows; it stays as it is.
            let Some(class) = super::open::class_of(class) else { continue };
            if let Some(kek) = open_kek(&self.root, &self.site, id, class, &sealed) {
                keks.push((id, class as u8, seal_kek(&new, &self.site, id, class, &kek, &mut *self.rng)));
            }
        }
        let (epoch, mark) = (self.epoch, sealed_mark(&new, &self.site, &mut *self.rng));
        self.session.run("write to", move |peer| {
            peer.client.batch_execute("BEGIN")?;
            peer.prove(epoch)?;
            if !keks.is_empty() {
                peer.put_keks(keks)?;
            }
            peer.client.execute(schema::SET_MARK, &[&super::open::ROOT, &mark])?;
            Ok(peer.client.batch_execute("COMMIT")?)
        })?;
        self.root = new;
        Ok(())
    }
}
