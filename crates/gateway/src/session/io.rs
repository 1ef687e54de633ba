//! What goes into a session and what comes out of it.

use crypto::record::Change;
use crypto::secret::SecretBytes;
use terminal::control::StreamId;
use terminal::{EpochLimits, ReceiverCounts};
use types::event::Event;
use types::id::{KeyId, RequestId, SaeId, TerminalId};
use types::units::{BitLen, ByteLen};

use crate::policy::{Level, Policy};

/// How keys are ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupplyPlan {
    /// Bytes of one key.
    pub key_len: ByteLen,
    /// Keys in one order, at most.
    pub keys_max: u32,
    /// Slots for later openings to hold in stock.
    pub opening_slots: u32,
}

impl Default for SupplyPlan {
    fn default() -> Self {
        Self { key_len: ByteLen(32), keys_max: 64, opening_slots: 4 }
    }
}

/// What a session is made with.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The terminal.
    pub terminal: TerminalId,
    /// The gateway's SAE.
    pub center: SaeId,
    /// Protection. The terminal takes the gateway's capacity, and the stricter floor of its own and the gateway's.
    pub policy: Policy,
    /// How keys are ordered; counts at the gateway.
    pub supply: SupplyPlan,
    /// When epoch keys are replaced.
    pub limits: EpochLimits,
    /// 16 fresh random bytes.
    pub nonce: [u8; 16],
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input {
    /// Bytes from the cipher connection.
    Received(Vec<u8>),
    /// So many bytes were written to the cipher connection.
    Written(usize),
    /// The cipher connection is gone.
    Lost,
    /// Answer to [`Output::OrderKeys`].
    KeysOrdered {
        /// Which request.
        request: RequestId,
        /// The keys with their ids, or why not.
        keys: Result<Vec<(KeyId, SecretBytes)>, String>,
    },
    /// Answer to [`Output::CollectKeys`].
    KeysCollected {
        /// Which request.
        request: RequestId,
        /// The keys in the order of the ids, or why not.
        keys: Result<Vec<SecretBytes>, String>,
    },
    /// The commit of this number is durable, and all before it.
    Durable(u64),
    /// Bytes from a plain connection. The next only after [`Output::Ready`].
    PlainReceived {
        /// Which connection.
        stream: StreamId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A plain connection will send no more (FIN).
    PlainFinished(StreamId),
    /// A plain connection is gone or could not be made (RST).
    PlainReset(StreamId),
    /// So many bytes were written to a plain connection.
    PlainDelivered {
        /// Which connection.
        stream: StreamId,
        /// How many.
        bytes: usize,
    },
    /// The process stops.
    Stop,
}

/// What a session wants done.
#[derive(Debug)]
pub enum Output {
    /// Bytes for the cipher connection.
    Send(Vec<u8>),
    /// The other end accepted a plain connection: make one here.
    Dial(StreamId),
    /// Bytes for a plain connection.
    Deliver {
        /// Which connection.
        stream: StreamId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Shut a plain connection down for writing.
    Finish(StreamId),
    /// Reset a plain connection.
    Reset(StreamId),
    /// The stream takes more bytes.
    Ready(StreamId),
    /// Order keys at the key management entity (gateway).
    OrderKeys {
        /// For the answer.
        request: RequestId,
        /// What they are for.
        purpose: RequestPurpose,
        /// How many.
        number: u32,
        /// Bits of each.
        size: BitLen,
    },
    /// Collect keys at the key management entity (terminal).
    CollectKeys {
        /// For the answer.
        request: RequestId,
        /// Which.
        ids: Vec<KeyId>,
    },
    /// Make changes durable, in order, and answer with [`Input::Durable`].
    Commit {
        /// Number of the commit.
        seq: u64,
        /// The changes.
        changes: Vec<Change>,
    },
    /// Something that the audit log wants.
    Event(Event),
    /// The session is open: plain connections may come.
    Opened,
    /// The session is over; close everything.
    Close {
        /// Why.
        reason: String,
    },
}

/// What ordered keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestPurpose {
    /// To open this session.
    Opening,
    /// For the pool.
    TopUp,
}

/// What a session looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it is open.
    pub open: bool,
    /// This end's level.
    pub level: Level,
    /// The other end's level, as it said.
    pub peer_level: Level,
    /// Records sent under a one-time pad.
    pub sent_otp: u64,
    /// Records sent under an epoch key.
    pub sent_aead: u64,
    /// What was received and refused.
    pub received: ReceiverCounts,
    /// Bytes of pad to send with.
    pub send_stock: ByteLen,
    /// Bytes of pad to receive with.
    pub receive_stock: ByteLen,
    /// Bytes that a pool is filled up to.
    pub capacity: ByteLen,
    /// Slots for later openings.
    pub opening_slots: usize,
    /// Plain connections.
    pub streams: usize,
    /// Batches installed in this session.
    pub batches: u64,
}
