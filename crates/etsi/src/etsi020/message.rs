//! The containers of the standard, read from and written to JSON.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use types::id::KeyId;

use super::field::{BoundedList, BoundedText, KeyValue, UuidText, without_needless_escapes};
use super::{
    ACKS_MAX, BODY_MAX, CallbackUrl, Extension, KEYS_MAX, MESSAGE_MAX, TARGETS_MAX, TRANSFER_BYTES_MAX, TransferSae,
    VERSIONS_MAX,
};

/// Why a body is no such message. Quotes nothing of the body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It is no JSON, or larger than [`BODY_MAX`].
    #[error("the body is no JSON text of at most {BODY_MAX} bytes")]
    NotJson,
    /// A required member is missing.
    #[error("required member {0} is missing")]
    Missing(&'static str),
    /// A member is not as the standard says.
    #[error("a member is not as the standard says, near line {line}, column {column}")]
    Invalid {
        /// Line of the body.
        line: usize,
        /// Column of the line.
        column: usize,
    },
    /// The members do not fit together.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// What a KME speaks (`version_container`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionContainer {
    /// Versions of the API.
    pub versions: Vec<String>,
    /// Optional abilities.
    pub capabilities: Vec<String>,
    /// Extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
}

/// Keys for another KME to deliver (`ext_key_container`).
#[derive(Debug, PartialEq, Eq)]
pub struct ExtKeyContainer {
    /// The keys.
    pub keys: Vec<Key>,
    /// The SAE that asked for them.
    pub initiator: TransferSae,
    /// The SAEs that shall get them too.
    pub targets: Vec<TransferSae>,
    /// Where acknowledgements go; none in synchronous mode.
    pub ack_callback_url: Option<CallbackUrl>,
    /// What the receiver must support.
    pub extension_mandatory: Option<Extension>,
    /// What the receiver passes on.
    pub extension_optional: Option<Extension>,
}

/// One key of a transfer.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Its bits.
    pub value: SecretBytes,
    /// What belongs to it.
    pub extension: Option<Extension>,
}

/// The fate of keys (`ack_containers`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AckContainers(pub Vec<AckContainer>);

/// Keys with the same fate and the same SAEs (`ack_container`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AckContainer {
    /// Which keys.
    #[serde(rename = "key_id_container")]
    pub keys: Vec<KeyEntry>,
    /// Their fate.
    #[serde(rename = "ack_status")]
    pub status: AckStatus,
    /// The SAE that asked for them.
    #[serde(rename = "initiator_sae_id")]
    pub initiator: TransferSae,
    /// The SAEs of which the fate is told.
    #[serde(rename = "target_sae_ids")]
    pub targets: Vec<TransferSae>,
    /// More for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Extension of all keys of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
}

/// One key id of an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyEntry {
    /// The id.
    #[serde(rename = "key_id")]
    pub id: KeyId,
    /// What belongs to the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
}

/// What became of keys (`ack_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AckStatus {
    /// They wait for the targets.
    #[serde(rename = "relayed")]
    Relayed,
    /// They could not be brought to the targets.
    #[serde(rename = "failed")]
    Failed,
    /// They are destroyed and were given to no SAE.
    #[serde(rename = "voided")]
    Voided,
    /// They could not be voided.
    #[serde(rename = "failed to void")]
    FailedToVoid,
    /// No such keys are there.
    #[serde(rename = "key not present")]
    KeyNotPresent,
}

/// Keys to be destroyed (`void_container`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VoidContainer {
    /// Which keys; none stands for all of these SAEs.
    pub key_ids: Vec<KeyId>,
    /// The SAE that asked for them.
    #[serde(rename = "initiator_sae_id")]
    pub initiator: TransferSae,
    /// The SAEs that they were for.
    #[serde(rename = "target_sae_ids")]
    pub targets: Vec<TransferSae>,
    /// Where the acknowledgement goes; none in synchronous mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_callback_url: Option<CallbackUrl>,
    /// Extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
    /// Whether an empty list means all keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_confirmation: Option<bool>,
}

impl VersionContainer {
    /// Reads it.
    ///
    /// # Errors
    /// If the body is no version container.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let wire: VersionWire = parsed(body)?;
        let texts = |list: Vec<BoundedText<128>>| list.into_iter().map(|text| text.0).collect();
        Ok(Self {
            versions: wire.versions.0.into_iter().map(|version| version.0).collect(),
            capabilities: wire.capabilities.map(|list| texts(list.0)).unwrap_or_default(),
            extension: wire.extension,
        })
    }

    /// Writes it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json(self)
    }
}

impl ExtKeyContainer {
    /// Reads it. The body stays the caller's to wipe.
    ///
    /// # Errors
    /// If the body is no transfer: a bound is broken, a key id stands twice, or the SAEs are no initiator and targets.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        if body.len() > BODY_MAX {
            return Err(Malformed::NotJson);
        }
        let plain = without_needless_escapes(body);
        let wire: ExtKeyWire = parsed(&plain)?;
        let keys = wire.keys.0.into_iter();
        let keys = keys.map(|key| Key { id: key.key_id.0, value: key.value.0, extension: key.extension });
        let container = Self {
            keys: keys.collect(),
            initiator: wire.initiator_sae_id,
            targets: wire.target_sae_ids.0,
            ack_callback_url: wire.ack_callback_url,
            extension_mandatory: wire.extension_mandatory,
            extension_optional: wire.extension_optional,
        };
        if container.keys.is_empty() {
            return Err(Malformed::Contradiction("a transfer needs at least one key"));
        }
        if container.keys.iter().map(|key| key.value.len()).sum::<usize>() > TRANSFER_BYTES_MAX {
            return Err(Malformed::Contradiction("the keys of a transfer are too large together"));
        }
        distinct(container.keys.iter().map(|key| key.id))?;
        check_saes(&container.initiator, &container.targets)?;
        Ok(container)
    }

    /// Writes it; the text holds key bits. Written by hand, so that they lie in no JSON tree.
    #[must_use]
    pub fn to_json(&self) -> SecretBytes {
        let rest = json(&Rest {
            initiator_sae_id: &self.initiator,
            target_sae_ids: &self.targets,
            ack_callback_url: self.ack_callback_url.as_ref(),
            extension_mandatory: self.extension_mandatory.as_ref(),
            extension_optional: self.extension_optional.as_ref(),
        });
        let rest = String::from_utf8(rest).expect("JSON is UTF-8");
        // Room for all of it at once: a buffer that grew would leave key bits behind.
        let room = |key: &Key| {
            key.value.len().div_ceil(3) * 4 + key.extension.as_ref().map_or(0, |e| e.as_json().len()) + KEY_TEXT
        };
        let mut body = String::with_capacity(self.keys.iter().map(room).sum::<usize>() + rest.len() + KEY_TEXT);
        let reserved = body.capacity();
        body.push_str(r#"{"keys":["#);
        for (index, key) in self.keys.iter().enumerate() {
            body.push_str(if index == 0 { "" } else { "," });
            body.push_str(&format!(r#"{{"key_id":"{}","value":""#, key.id));
            key.value.expose(|bits| STANDARD.encode_string(bits, &mut body));
            body.push('"');
            if let Some(extension) = &key.extension {
                body.push_str(&format!(r#","extension":{}"#, extension.as_json()));
            }
            body.push('}');
        }
        // The object goes on where that of the rest begins.
        body.push_str("],");
        body.push_str(rest.strip_prefix('{').expect("an object begins with a brace"));
        assert_eq!(body.capacity(), reserved, "the room was counted above");
        SecretBytes::from_vec(body.into_bytes())
    }
}

impl AckContainers {
    /// Reads them.
    ///
    /// # Errors
    /// If the body is no list of acknowledgements.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let wire: BoundedList<AckWire, ACKS_MAX> = parsed(body)?;
        let acks = wire.0.into_iter().map(|ack| {
            check_saes(&ack.initiator_sae_id, &ack.target_sae_ids.0)?;
            let keys = ack.key_id_container.0.into_iter();
            Ok(AckContainer {
                keys: keys.map(|key| KeyEntry { id: key.key_id.0, extension: key.extension }).collect(),
                status: ack.ack_status,
                initiator: ack.initiator_sae_id,
                targets: ack.target_sae_ids.0,
                message: ack.message.map(|text| text.0),
                extension: ack.extension,
            })
        });
        acks.collect::<Result<_, _>>().map(Self)
    }

    /// Writes them.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json(self)
    }
}

impl VoidContainer {
    /// Reads it.
    ///
    /// # Errors
    /// If the body is no such request.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let wire: VoidWire = parsed(body)?;
        let container = Self {
            key_ids: wire.key_ids.0.into_iter().map(|id| id.0).collect(),
            initiator: wire.initiator_sae_id,
            targets: wire.target_sae_ids.0,
            ack_callback_url: wire.ack_callback_url,
            extension: wire.extension,
            all_confirmation: wire.all_confirmation,
        };
        distinct(container.key_ids.iter().copied())?;
        check_saes(&container.initiator, &container.targets)?;
        Ok(container)
    }

    /// Writes it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json(self)
    }
}

#[derive(Deserialize)]
struct VersionWire {
    versions: BoundedList<BoundedText<16>, VERSIONS_MAX>,
    #[serde(default, deserialize_with = "present")]
    capabilities: Option<BoundedList<BoundedText<128>, VERSIONS_MAX>>,
    #[serde(default, deserialize_with = "present")]
    extension: Option<Extension>,
}

#[derive(Deserialize)]
struct ExtKeyWire {
    keys: BoundedList<KeyWire, KEYS_MAX>,
    initiator_sae_id: TransferSae,
    target_sae_ids: BoundedList<TransferSae, TARGETS_MAX>,
    #[serde(default, deserialize_with = "present")]
    ack_callback_url: Option<CallbackUrl>,
    #[serde(default, deserialize_with = "present")]
    extension_mandatory: Option<Extension>,
    #[serde(default, deserialize_with = "present")]
    extension_optional: Option<Extension>,
}

#[derive(Deserialize)]
struct KeyWire {
    key_id: UuidText,
    value: KeyValue,
    #[serde(default, deserialize_with = "present")]
    extension: Option<Extension>,
}

#[derive(Deserialize)]
struct AckWire {
    key_id_container: BoundedList<EntryWire, KEYS_MAX>,
    ack_status: AckStatus,
    initiator_sae_id: TransferSae,
    target_sae_ids: BoundedList<TransferSae, TARGETS_MAX>,
    #[serde(default, deserialize_with = "present")]
    message: Option<BoundedText<MESSAGE_MAX>>,
    #[serde(default, deserialize_with = "present")]
    extension: Option<Extension>,
}

#[derive(Deserialize)]
struct EntryWire {
    key_id: UuidText,
    #[serde(default, deserialize_with = "present")]
    extension: Option<Extension>,
}

#[derive(Deserialize)]
struct VoidWire {
    key_ids: BoundedList<UuidText, KEYS_MAX>,
    initiator_sae_id: TransferSae,
    target_sae_ids: BoundedList<TransferSae, TARGETS_MAX>,
    #[serde(default, deserialize_with = "present")]
    ack_callback_url: Option<CallbackUrl>,
    #[serde(default, deserialize_with = "present")]
    extension: Option<Extension>,
    #[serde(default, deserialize_with = "present")]
    all_confirmation: Option<bool>,
}

/// A transfer without its keys.
#[derive(Serialize)]
struct Rest<'a> {
    initiator_sae_id: &'a TransferSae,
    target_sae_ids: &'a [TransferSae],
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_callback_url: Option<&'a CallbackUrl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extension_mandatory: Option<&'a Extension>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extension_optional: Option<&'a Extension>,
}

/// A member that may be missing, but not null.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and lists of them are JSON")
}

fn parsed<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Malformed> {
    if body.len() > BODY_MAX {
        return Err(Malformed::NotJson);
    }
    serde_json::from_slice(body).map_err(|error| {
        if !error.is_data() {
            return Malformed::NotJson;
        }
        // The text of the error may quote the body; only what it says of our own member names goes on.
        let text = error.to_string();
        let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let missing = missing.and_then(|name| REQUIRED.into_iter().find(|known| *known == name));
        missing.map_or(Malformed::Invalid { line: error.line(), column: error.column() }, Malformed::Missing)
    })
}

fn distinct(ids: impl Iterator<Item = KeyId>) -> Result<(), Malformed> {
    let mut seen = BTreeSet::new();
    let mut ids = ids;
    let ok = ids.all(|id| seen.insert(id));
    ok.then_some(()).ok_or(Malformed::Contradiction("a key_id stands twice"))
}

fn check_saes(initiator: &TransferSae, targets: &[TransferSae]) -> Result<(), Malformed> {
    let distinct: BTreeSet<_> = targets.iter().collect();
    if targets.is_empty() {
        return Err(Malformed::Contradiction("target_sae_ids needs at least one SAE"));
    }
    if distinct.len() != targets.len() || distinct.contains(initiator) {
        return Err(Malformed::Contradiction("target_sae_ids names an SAE twice, or the initiator"));
    }
    Ok(())
}

/// Members that a message must have.
const REQUIRED: [&str; 9] = [
    "keys",
    "key_id",
    "value",
    "initiator_sae_id",
    "target_sae_ids",
    "key_id_container",
    "ack_status",
    "key_ids",
    "versions",
];
/// Text around one key: names, quotes, its id.
const KEY_TEXT: usize = 96;
