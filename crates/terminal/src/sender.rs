//! Seals records of one direction.

use alloc::vec::Vec;
use core::mem;

use crypto::domain::Domain;
use crypto::pad::OneTimePad;
use crypto::secret::SecretBytes;
use crypto::tag::OneTimeTagKey;
use types::id::BatchId;

use crate::epoch::{EpochLimits, SEED_LEN, SendEpoch};
use crate::error::Error;
use crate::pad::{PadChunk, PadSource};
use crate::record::{Class, Direction, Header, Kind, OVERHEAD};
use crate::suite::{Suite, TAG_KEY, UNIT};

/// How one record is to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The suite.
    pub suite: Suite,
    /// What the record carries.
    pub kind: Kind,
    /// The class of its content.
    pub class: Class,
}

/// The sending end of one direction: holds the stretch of pad in use and the epoch in use.
///
/// Bytes of pad are taken by value and never come back: a record that was sealed and not sent burns its key.
#[derive(Debug)]
pub struct PadSender {
    direction: Direction,
    limits: EpochLimits,
    current: Option<PadChunk>,
    ahead: Option<PadChunk>,
    epoch: Option<SendEpoch>,
    burned: u64,
}

impl PadSender {
    /// A sender without pad, with the default limits of an epoch.
    #[must_use]
    pub fn new(direction: Direction) -> Self {
        Self::with_limits(direction, EpochLimits::default())
    }

    /// A sender with its own limits of an epoch.
    #[must_use]
    pub fn with_limits(direction: Direction, limits: EpochLimits) -> Self {
        Self { direction, limits, current: None, ahead: None, epoch: None, burned: 0 }
    }

    /// Starts an epoch with a seed that came with the opening of a session.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the batch is of the other direction or the seed is not 32 bytes at a multiple of 16.
    pub fn start_epoch(&mut self, batch: BatchId, offset: u64, seed: &SecretBytes) -> Result<(), Error> {
        if Direction::of(batch) != self.direction {
            return Err(Error::ApiMisuse { what: "an epoch of the other direction" });
        }
        let epoch = SendEpoch::new(batch, offset, seed).ok_or(Error::ApiMisuse { what: "not the seed of an epoch" })?;
        self.epoch = Some(epoch);
        Ok(())
    }

    /// Bytes of pad held here, taken from the source and not used yet.
    #[must_use]
    pub fn held(&self) -> u64 {
        [&self.current, &self.ahead].into_iter().flatten().map(|chunk| chunk.len() as u64).sum()
    }

    /// Bytes of pad given up so far because they were too few in one piece.
    #[must_use]
    pub fn burned(&self) -> u64 {
        self.burned
    }

    /// Whether the epoch in use has worn and wants a new seed, or there is none.
    #[must_use]
    pub fn wants_epoch(&self) -> bool {
        self.epoch.as_ref().is_none_or(|epoch| epoch.is_worn(&self.limits))
    }

    /// Makes the epoch in use want a new seed, because of its age.
    pub fn wear_epoch(&mut self) {
        if let Some(epoch) = &mut self.epoch {
            epoch.wear(&self.limits);
        }
    }

    /// Largest plaintext that suite 0 can take now in one record, at most `want`. Zero if there is no pad.
    pub fn otp_room(&mut self, source: &mut impl PadSource, want: usize) -> usize {
        let want = want.min(Suite::OtpWc128.plain_max());
        let left = self.gather(source, Suite::OtpWc128.consumption(want), TAG_KEY + UNIT);
        let room = usize::try_from(left.saturating_sub(TAG_KEY) / UNIT * UNIT).unwrap_or(usize::MAX);
        room.min(want)
    }

    /// Seals one record. `context` is authenticated but not sent; both ends must know it.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the plaintext is too long for the suite. [`Error::Exhausted`] if the pad holds
    /// too little in one piece, or no epoch key is left; nothing was consumed then.
    pub fn seal(
        &mut self,
        source: &mut impl PadSource,
        seal: Seal,
        context: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if plain.len() > seal.suite.plain_max() {
            return Err(Error::ApiMisuse { what: "a plaintext longer than the suite's largest record" });
        }
        match seal.suite {
            Suite::OtpWc128 => self.seal_otp(source, seal, context, plain),
            Suite::Aes256Gcm => self.seal_epoch(source, seal, context, plain),
        }
    }

    fn seal_otp(
        &mut self,
        source: &mut impl PadSource,
        seal: Seal,
        context: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let (batch, offset, mut key) = self.take(source, Suite::OtpWc128.consumption(plain.len()))?;
        let header = Header { kind: seal.kind, suite: seal.suite, class: seal.class, batch, offset }.encode();
        let tag_key = key.split_front(OneTimeTagKey::LEN).expect("the consumption holds a tag key");
        let pad = key.split_front(plain.len()).expect("the consumption holds the pad");
        let mut record = Vec::with_capacity(plain.len() + OVERHEAD);
        record.extend_from_slice(&header);
        record.extend_from_slice(plain);
        let body = record.get_mut(header.len()..).expect("the header was written");
        OneTimePad::new(pad).apply(body).expect("the pad has the plaintext's length");
        let tag = OneTimeTagKey::new(tag_key)
            .expect("32 bytes were cut")
            .tag(Domain::TerminalRecord, &[&header, context, body]);
        record.extend_from_slice(&tag.0);
        Ok(record)
    }

    fn seal_epoch(
        &mut self,
        source: &mut impl PadSource,
        seal: Seal,
        context: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if self.wants_epoch() {
            match self.take(source, SEED_LEN as u64) {
                Ok((batch, offset, seed)) => {
                    self.epoch = Some(
                        SendEpoch::new(batch, offset, &seed)
                            .ok_or(Error::ApiMisuse { what: "a batch beyond the offsets that a header can name" })?,
                    );
                }
                Err(exhausted) if self.epoch.is_none() => return Err(exhausted),
                Err(_) => {}
            }
        }
        let limits = self.limits;
        let epoch = self
            .epoch
            .as_mut()
            .filter(|epoch| !epoch.is_spent(&limits))
            .ok_or(Error::Exhausted { needed: SEED_LEN as u64, left: 0 })?;
        let header = Header {
            kind: seal.kind,
            suite: seal.suite,
            class: seal.class,
            batch: epoch.batch,
            offset: epoch.next_field(),
        }
        .encode();
        let mut record = Vec::with_capacity(plain.len() + OVERHEAD);
        record.extend_from_slice(&header);
        record.extend_from_slice(plain);
        let aad = [&header, context].concat();
        let body = record.get_mut(header.len()..).expect("the header was written");
        let tag = epoch.seal(&aad, body);
        record.extend_from_slice(&tag);
        Ok(record)
    }

    /// `len` bytes in one piece, with batch and offset.
    fn take(&mut self, source: &mut impl PadSource, len: u64) -> Result<(BatchId, u64, SecretBytes), Error> {
        let left = self.gather(source, len, len);
        let exhausted = Error::Exhausted { needed: len, left };
        let chunk = self.current.as_mut().filter(|_| left >= len).ok_or(exhausted.clone())?;
        let (offset, bytes) = usize::try_from(len).ok().and_then(|len| chunk.take(len)).ok_or(exhausted)?;
        Ok((chunk.batch(), offset, bytes))
    }

    /// Tries to have `want` bytes in one piece and burns pieces below `least`; returns what is there in one piece.
    fn gather(&mut self, source: &mut impl PadSource, want: u64, least: u64) -> u64 {
        loop {
            let left = self.current.as_ref().map_or(0, |chunk| chunk.len() as u64);
            if left >= want {
                return left;
            }
            if self.ahead.is_none() {
                self.ahead = source.next_chunk();
                debug_assert!(self.ahead.as_ref().is_none_or(|chunk| Direction::of(chunk.batch()) == self.direction));
            }
            match (&mut self.current, &self.ahead) {
                (_, None) => return left,
                (Some(current), Some(ahead)) if current.continues(ahead) => {
                    current.join(ahead);
                    self.ahead = None;
                }
                (_, Some(_)) if left >= least => return left,
                (current, Some(_)) => {
                    self.burned += left;
                    mem::swap(current, &mut self.ahead);
                    self.ahead = None;
                }
            }
        }
    }
}
