//! The bodies of the access messages. Bytes: `docs/formats/record.md`, "Access frames".

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use types::codec::{CodecError, Reader, Writer};
use types::id::{BatchId, KeyId, SaeId, TerminalId, Uuid};

use crate::receiver::{BATCH_MAX, Floor};
use crate::record::{Class, batch_number};
use crate::suite::{Strength, Suite, UNIT};

/// Key ids in one opening, at most.
pub const IDS_MAX: usize = 64;
/// Batches in one inventory, both directions together.
pub const INVENTORY_MAX: usize = 1024;

const SUITES_MAX: usize = 16;
const NONCE_LEN: usize = 16;
const REASON_MAX: usize = 120;

/// Where the opening keys are. Key ids are public: only who may collect them gets the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Keys to be collected from the key management entity, by id; their bytes in this order are the opening's.
    Keys(Vec<KeyId>),
    /// A slot of a batch of openings that both ends hold.
    Slot {
        /// The batch.
        batch: BatchId,
        /// Number of the slot.
        slot: u32,
    },
}

/// Step 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The control center's SAE.
    pub center: SaeId,
    /// The terminal meant.
    pub terminal: TerminalId,
    /// Fresh random bytes.
    pub nonce: [u8; NONCE_LEN],
    /// Where the opening keys are.
    pub keys: KeySource,
}

/// One batch that an end holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InventoryLine {
    /// The batch.
    pub batch: BatchId,
    /// A sender's next offset, or a receiver's high-water mark.
    pub mark: u64,
    /// Length of the whole batch.
    pub len: u64,
}

/// The batches that an end holds, both directions, in ascending order.
pub type Inventory = Vec<InventoryLine>;

/// Step 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRequest {
    /// The terminal's id.
    pub terminal: TerminalId,
    /// Fresh random bytes.
    pub nonce: [u8; NONCE_LEN],
    /// Numbers of the suites that it can do, best first.
    pub suites: Vec<u8>,
    /// The highest batch number it ever installed.
    pub highest: u32,
    /// What it holds.
    pub inventory: Inventory,
}

/// A batch that both ends keep, and where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The batch.
    pub batch: BatchId,
    /// Everything below is burned at both ends.
    pub start: u64,
}

/// Step 2. Batches that are not named are destroyed at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessResponse {
    /// Numbers of the suites that will be used, out of those offered.
    pub suites: Vec<u8>,
    /// The batches that both ends keep.
    pub agreed: Vec<Agreed>,
}

/// Step 5 of the nine: what the session may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiate {
    /// The suite that the session starts with.
    pub suite: Suite,
    /// The floor per class, for both receivers.
    pub floor: Floor,
    /// Bytes of pad per direction that the pools are filled up to; levels are shares of it.
    pub volume: u64,
    /// Seconds after which the session must be opened anew; 0 for no limit.
    pub lifetime_s: u32,
}

/// Step 6 of the nine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// Bytes of pad the terminal holds to receive with.
    pub down: u64,
    /// Bytes of pad the terminal holds to send with.
    pub up: u64,
    /// Empty if the terminal agrees; else why not.
    pub refusal: String,
}

/// Step 9 of the nine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records sealed and opened under a one-time pad.
    pub otp_records: u64,
    /// Records sealed and opened under an epoch key.
    pub aead_records: u64,
    /// Records refused.
    pub refused: u64,
    /// Bytes of pad left to receive with.
    pub down: u64,
    /// Bytes of pad left to send with.
    pub up: u64,
}

/// Why a terminal refuses an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Refused {
    /// The opening is for another terminal or from another control center.
    NotForMe = 1,
    /// The slot is not held here (any more).
    UnknownSlot = 2,
    /// The keys could not be collected.
    NoKeys = 3,
    /// The tag does not hold.
    NotAuthentic = 4,
}

impl Refused {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::NotForMe, Self::UnknownSlot, Self::NoKeys, Self::NotAuthentic]
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }

    /// For people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NotForMe => "the opening is for another pair",
            Self::UnknownSlot => "the terminal does not hold this opening slot",
            Self::NoKeys => "the terminal could not collect the opening keys",
            Self::NotAuthentic => "the opening is not authentic",
        }
    }
}

impl Opening {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes16(self.center.as_str().as_bytes()).bytes16(self.terminal.as_str().as_bytes()).put(&self.nonce);
        match &self.keys {
            KeySource::Keys(ids) => {
                w.u8(0).count(ids.len());
                ids.iter().for_each(|id| {
                    w.put(id.0.as_bytes());
                });
            }
            KeySource::Slot { batch, slot } => {
                w.u8(1).u32(batch.0).u32(*slot);
            }
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let center = SaeId::new(r.text16("center", 128)?).map_err(|_| CodecError::Value { field: "center" })?;
        let terminal = terminal_id(&mut r)?;
        let nonce = r.array("nonce")?;
        let keys = match r.u8("key source")? {
            0 => {
                let count = r.count("key ids", IDS_MAX)?;
                let ids = (0..count).map(|_| Ok(KeyId(Uuid::from_bytes(r.array("key id")?))));
                KeySource::Keys(ids.collect::<Result<_, CodecError>>()?)
            }
            1 => KeySource::Slot { batch: BatchId(r.u32("batch")?), slot: r.u32("slot")? },
            _ => return Err(CodecError::Value { field: "key source" }),
        };
        r.end()?;
        Ok(Self { center, terminal, nonce, keys })
    }
}

impl AccessRequest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes16(self.terminal.as_str().as_bytes()).put(&self.nonce).bytes16(&self.suites).u32(self.highest);
        w.count(self.inventory.len());
        for line in &self.inventory {
            w.u32(line.batch.0).u64(line.mark).u64(line.len);
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let terminal = terminal_id(&mut r)?;
        let nonce = r.array("nonce")?;
        let suites = r.bytes16("suites", SUITES_MAX)?.to_vec();
        let highest = r.u32("highest")?;
        let mut inventory = Inventory::new();
        for _ in 0..r.count("inventory", INVENTORY_MAX)? {
            let line = InventoryLine { batch: BatchId(r.u32("batch")?), mark: r.u64("mark")?, len: r.u64("length")? };
            let wrong = line.mark > line.len || line.len > BATCH_MAX as u64 || batch_number(line.batch) == 0;
            if wrong || inventory.last().is_some_and(|last| last.batch >= line.batch) {
                return Err(CodecError::Value { field: "inventory" });
            }
            inventory.push(line);
        }
        r.end()?;
        Ok(Self { terminal, nonce, suites, highest, inventory })
    }
}

impl AccessResponse {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes16(&self.suites).count(self.agreed.len());
        for agreed in &self.agreed {
            w.u32(agreed.batch.0).u64(agreed.start);
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let suites = r.bytes16("suites", SUITES_MAX)?.to_vec();
        let mut agreed: Vec<Agreed> = Vec::new();
        for _ in 0..r.count("agreed", INVENTORY_MAX)? {
            let next = Agreed { batch: BatchId(r.u32("batch")?), start: r.u64("start")? };
            let wrong = next.start > BATCH_MAX as u64 || !next.start.is_multiple_of(UNIT);
            if wrong || agreed.last().is_some_and(|last| last.batch >= next.batch) {
                return Err(CodecError::Value { field: "agreed" });
            }
            agreed.push(next);
        }
        r.end()?;
        Ok(Self { suites, agreed })
    }
}

impl Negotiate {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(self.suite.number()).u64(self.volume).u32(self.lifetime_s);
        for class in Class::ALL {
            w.u8(match self.floor.of(class) {
                Strength::Computational => 0,
                Strength::InformationTheoretic => 1,
            });
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let suite = Suite::from_number(r.u8("suite")?).map_err(|_| CodecError::Value { field: "suite" })?;
        let (volume, lifetime_s) = (r.u64("volume")?, r.u32("lifetime")?);
        let mut floor = Floor::default();
        for class in Class::ALL {
            floor = floor.with(
                class,
                match r.u8("floor")? {
                    0 => Strength::Computational,
                    1 => Strength::InformationTheoretic,
                    _ => return Err(CodecError::Value { field: "floor" }),
                },
            );
        }
        r.end()?;
        Ok(Self { suite, floor, volume, lifetime_s })
    }
}

impl Confirm {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let reason: String = self.refusal.chars().take(REASON_MAX / 4).collect();
        w.u64(self.down).u64(self.up).bytes16(reason.as_bytes());
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let (down, up) = (r.u64("down")?, r.u64("up")?);
        let refusal = r.text16("refusal", REASON_MAX)?.to_string();
        r.end()?;
        Ok(Self { down, up, refusal })
    }
}

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u64(self.otp_records).u64(self.aead_records).u64(self.refused).u64(self.down).u64(self.up);
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let report = Self {
            otp_records: r.u64("otp records")?,
            aead_records: r.u64("aead records")?,
            refused: r.u64("refused")?,
            down: r.u64("down")?,
            up: r.u64("up")?,
        };
        r.end()?;
        Ok(report)
    }
}

fn terminal_id(r: &mut Reader<'_>) -> Result<TerminalId, CodecError> {
    TerminalId::new(r.text16("terminal", 32)?).map_err(|_| CodecError::Value { field: "terminal" })
}
