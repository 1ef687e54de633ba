//! Key container (ETSI GS QKD 014, 6.3). Keys go from secret bytes into the body and back without passing through a
//! tree of JSON or a text of their own, so that no copy stays behind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::secret::SecretBytes;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::fmt;
use types::id::{KeyId, SiteId};
use zeroize::Zeroizing;

use super::error::BadRequest;
use super::json;

/// One key.
#[derive(Debug, PartialEq, Eq)]
pub struct SuppliedKey {
    /// Its id; public.
    pub id: KeyId,
    /// Its bits.
    pub key: SecretBytes,
    /// Where it came from, as member `qurrent_origin` of `key_extension`; other makers say nothing of it.
    pub origin: Option<KeyOrigin>,
}

/// How a key came to the two ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOrigin {
    /// Every way that carried a part of it, as the sites on it, both ends included. Empty if it never left its site.
    pub paths: Vec<Vec<SiteId>>,
    /// Trusted nodes crossed on the longest way; 0 if the two sites share a link.
    pub hops: u32,
    /// From how many node-disjoint ways its weakest part is combined; 0 if no way is noted.
    #[serde(default)]
    pub combined: u32,
    /// Milliseconds since its oldest part was made.
    pub age_ms: u64,
}

/// Writes a key container. The buffer is of the right size from the start and is wiped when it drops.
#[must_use]
pub fn write_container(keys: &[SuppliedKey]) -> Zeroizing<Vec<u8>> {
    let extensions: Vec<String> = keys.iter().map(|key| extension(key.origin.as_ref())).collect();
    let of_key = |key: &SuppliedKey| AROUND_KEY + key.key.len().div_ceil(3) * 4;
    let room = keys.iter().map(of_key).sum::<usize>() + extensions.iter().map(String::len).sum::<usize>() + AROUND;
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    body.extend_from_slice(br#"{"keys":["#);
    for (index, (key, extension)) in keys.iter().zip(&extensions).enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(format!(r#"{{"key_ID":"{}","key":""#, key.id).as_bytes());
        let start = body.len();
        body.resize(start + key.key.len().div_ceil(3) * 4, 0);
        let written = key.key.expose(|bits| STANDARD.encode_slice(bits, &mut body[start..]));
        assert_eq!(written.ok(), Some(body.len() - start), "the room is what base64 needs");
        body.push(b'"');
        body.extend_from_slice(extension.as_bytes());
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    assert!(body.len() <= room, "a buffer that grew would leave a copy of a key behind");
    body
}

/// Reads a key container; members that are not known are ignored.
///
/// # Errors
/// If it is no key container: the reason names no key.
pub fn read_container(body: &[u8]) -> Result<Vec<SuppliedKey>, BadRequest> {
    #[derive(Deserialize)]
    struct Container {
        // The table of the standard prints `Keys`, all its examples `keys`.
        #[serde(alias = "Keys")]
        keys: Vec<RawKey>,
    }
    #[derive(Deserialize)]
    struct RawKey {
        #[serde(rename = "key_ID")]
        id: KeyId,
        key: Base64Key,
        #[serde(default)]
        key_extension: Value,
    }
    if body.len() > CONTAINER_MAX || json::depth(body) > json::DEPTH_MAX {
        return Err(BadRequest::malformed("the key container is too large or nests too deep"));
    }
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(BadRequest::malformed("no JSON object"));
    }
    let parsed = serde_json::from_slice::<Container>(body);
    // What serde says of a wrong value may quote it.
    let container = parsed.map_err(|error| {
        BadRequest::malformed(format!("no key container (line {}, column {})", error.line(), error.column()))
    })?;
    let supplied = |raw: RawKey| {
        let origin = raw.key_extension.get(ORIGIN).and_then(|origin| KeyOrigin::deserialize(origin).ok());
        SuppliedKey { id: raw.id, key: raw.key.0, origin }
    };
    Ok(container.keys.into_iter().map(supplied).collect())
}

/// Base64 that is decoded where it stands.
struct Base64Key(SecretBytes);

impl<'de> Deserialize<'de> for Base64Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Base64Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64Key, E> {
                let mut bits = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
                let length = STANDARD.decode_slice(text, &mut bits).map_err(|_| E::custom("no base64"))?;
                let bits = bits.get(..length).unwrap_or_default();
                Ok(Base64Key(SecretBytes::copy_of(bits)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

fn extension(origin: Option<&KeyOrigin>) -> String {
    let written = origin.and_then(|origin| serde_json::to_string(origin).ok());
    written.map_or_else(String::new, |origin| format!(r#","key_extension":{{"{ORIGIN}":{origin}}}"#))
}

const ORIGIN: &str = "qurrent_origin";
/// Braces, names and the id of one key.
const AROUND_KEY: usize = 80;
/// Braces and name of the container.
const AROUND: usize = 16;
/// Most bytes of a key container that is read.
const CONTAINER_MAX: usize = 4 << 20;
