//! Notifications of one site: between its own SAEs at once, to SAEs of other sites over the channel between key
//! management entities. A notification counts as told when the other SAE's site says that it keeps it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use types::id::{KeyId, SaeId, SiteId};

use super::frame::{Frame, IDS_MAX, NOTE_MAX, Told, is_note};
use super::inbox::{Inbox, Page};
use crate::clock;
use crate::keeper::Keeper;
use crate::kx::{Channel, KxSender};

/// The notifications of a site.
pub struct Notices {
    keeper: Keeper,
    kx: KxSender,
    /// Cancelled when the site stops.
    pub(super) stop: CancellationToken,
    first: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    readers: BTreeMap<SaeId, Reader>,
    sequences: BTreeMap<(SaeId, SaeId), u64>,
    waiting: HashMap<u64, oneshot::Sender<bool>>,
    requests: u64,
}

struct Reader {
    inbox: Inbox,
    arrived: Arc<Notify>,
    slots: Arc<Semaphore>,
}

/// Why a notification was not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTold {
    /// The request is wrong in itself.
    #[error("{0}")]
    Malformed(String),
    /// The two SAEs do not hold these keys together, or one is not known.
    #[error("only SAEs that hold the keys may tell each other of them, while this site remembers it")]
    NotHolders,
    /// The other SAE's site did not answer; it may have kept the notification.
    #[error("the KME of the other SAE does not answer")]
    PeerDown,
    /// The other SAE's site refuses.
    #[error("the KME of the other SAE does not keep the notification")]
    Refused,
}

impl Notices {
    /// Nothing told yet.
    #[must_use]
    pub fn new(keeper: Keeper, kx: KxSender, stop: CancellationToken) -> Self {
        let first = clock::utc_now().0 / 1_000;
        Self { keeper, kx, stop, first, state: Mutex::default() }
    }

    /// Tells an SAE of keys that both hold; gives the notification's sequence number. `from` is the caller as its
    /// certificate names it.
    ///
    /// # Errors
    /// If the two do not hold all the keys together, or the other's site does not keep it.
    pub async fn announce(&self, from: &SaeId, to: &SaeId, ids: Vec<KeyId>, note: &str) -> Result<u64, NotTold> {
        if ids.is_empty() || ids.len() > IDS_MAX {
            return Err(NotTold::Malformed(format!("key_IDs needs 1 to {IDS_MAX} members")));
        }
        if !is_note(note) {
            return Err(NotTold::Malformed(format!("note is at most {NOTE_MAX} printable ASCII characters")));
        }
        let holders = self.keeper.serves(from) && ids.iter().all(|id| self.keeper.pairs().hold(*id, from, to));
        let Some(home) = self.keeper.home(to).filter(|_| holders) else { return Err(NotTold::NotHolders) };
        let sequence = self.next_sequence(from, to);
        let told = Told { sequence, ids, note: note.to_owned() };
        if home == self.keeper.site() {
            self.keep(from.clone(), to.clone(), told);
            return Ok(sequence);
        }
        self.send(home, from, to, told).await.map(|()| sequence)
    }

    /// Takes a frame of another site.
    pub fn frame_arrived(&self, site: &SiteId, bytes: &[u8]) {
        match Frame::decode(bytes) {
            Ok(Frame::Notice { request, from, to, told }) => {
                // A site may speak for its own SAEs alone, and to ours.
                let kept = self.keeper.home(&from) == Some(site) && self.keeper.serves(&to);
                if kept {
                    self.keep(from, to, told);
                } else {
                    tracing::warn!(%site, %from, %to, "a site sent a notification that is not its own to send");
                }
                self.kx.send(site, Channel::Notice, &Frame::Answer { request, kept }.encode());
            }
            Ok(Frame::Answer { request, kept }) => {
                if let Some(waits) = self.state().waiting.remove(&request) {
                    let _gave_up = waits.send(kept);
                }
            }
            Err(error) => tracing::warn!(%site, %error, "a site sent a malformed notification"),
        }
    }

    /// What an SAE of this site was told, from a cursor on.
    pub(super) fn read(&self, sae: &SaeId, cursor: Option<u64>) -> Page {
        self.reader(&mut self.state(), sae).inbox.read(cursor)
    }

    /// Wakes up at the next notification of an SAE.
    pub(super) fn arrival(&self, sae: &SaeId) -> Arc<Notify> {
        self.reader(&mut self.state(), sae).arrived.clone()
    }

    /// Places for readers of an SAE that wait.
    pub(super) fn slots(&self, sae: &SaeId) -> Arc<Semaphore> {
        self.reader(&mut self.state(), sae).slots.clone()
    }

    /// Whether an SAE may read here.
    pub(super) fn serves(&self, sae: &SaeId) -> bool {
        self.keeper.serves(sae)
    }

    async fn send(&self, home: &SiteId, from: &SaeId, to: &SaeId, told: Told) -> Result<(), NotTold> {
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut state = self.state();
            if state.waiting.len() >= WAITING_MAX {
                return Err(NotTold::PeerDown);
            }
            state.requests += 1;
            let request = state.requests;
            state.waiting.insert(request, answer);
            request
        };
        let waiting = Waiting { notices: self, request };
        let frame = Frame::Notice { request, from: from.clone(), to: to.clone(), told };
        self.kx.send(home, Channel::Notice, &frame.encode());
        let outcome = timeout(ANSWER_MAX, answered).await;
        drop(waiting);
        match outcome {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(NotTold::Refused),
            Ok(Err(_)) | Err(_) => Err(NotTold::PeerDown),
        }
    }

    fn keep(&self, from: SaeId, to: SaeId, told: Told) {
        let mut state = self.state();
        let reader = self.reader(&mut state, &to);
        reader.inbox.push(from, told, clock::utc_now());
        reader.arrived.notify_waiters();
    }

    /// Only SAEs of this site get an inbox, so that their number is bounded.
    fn reader<'a>(&self, state: &'a mut State, sae: &SaeId) -> &'a mut Reader {
        state.readers.entry(sae.clone()).or_insert_with(|| Reader {
            inbox: Inbox::new(self.first),
            arrived: Arc::default(),
            slots: Arc::new(Semaphore::new(READERS_MAX)),
        })
    }

    fn next_sequence(&self, from: &SaeId, to: &SaeId) -> u64 {
        let mut state = self.state();
        let sequence = state.sequences.entry((from.clone(), to.clone())).or_insert(self.first);
        *sequence += 1;
        *sequence
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a request off the books however its wait ends.
struct Waiting<'a> {
    notices: &'a Notices,
    request: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.notices.state().waiting.remove(&self.request);
    }
}

const ANSWER_MAX: Duration = Duration::from_secs(2);
const WAITING_MAX: usize = 4_096;
/// Long polls and streams of one SAE at once.
const READERS_MAX: usize = 16;
