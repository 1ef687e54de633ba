//! SKIP, the Secure Key Integration Protocol (draft-cisco-skip-02, draft-singh-skip-00): an encryptor asks its key
//! provider for a key to share with a remote system, tells the other encryptor the key's id, and that one asks
//! its own key provider. All requests are GET; bodies are JSON.
//!
//! ```text
//! GET /capabilities                             -> Capabilities
//! GET /key?remoteSystemID=ID[&size=BITS]        -> {"keyId":"<32 hex>","key":"<hex>"}
//! GET /key/{keyId}?remoteSystemID=ID            -> the same key, once
//! GET /entropy[?minentropy=BITS]                -> {"randomStr":"<hex>","minentropy":BITS}
//! ```
//!
//! Provided: requests parsed with bounds, bodies written without a copy of the key left behind, bodies read back,
//! patterns of system ids. A key id is the UUID of ETSI GS QKD 014 without hyphens.
//! Not provided: transport; TLS with a pre-shared key, which is the default of Cisco's IOS XE.

mod query;

use crypto::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use types::id::{KeyId, Uuid};
use zeroize::Zeroizing;

use self::query::Query;
pub use self::query::decode_percent;

/// A request that is wrong in itself; answered 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// `GET /key`: a fresh key to share with a remote system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// The remote system.
    pub remote: String,
    /// Bits of the key; the provider's default if not said.
    pub size_bits: Option<u32>,
}

/// `GET /key/{keyId}`: the key that the remote system was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyById {
    /// Which key.
    pub id: KeyId,
    /// The remote system, which asked for it first.
    pub remote: String,
}

/// Answer of `GET /capabilities`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Whether `/entropy` is served.
    pub entropy: bool,
    /// Whether `/key` is served.
    pub key: bool,
    /// How keys come to both ends.
    pub algorithm: String,
    /// The system that asks.
    #[serde(rename = "localSystemID")]
    pub local_system_id: String,
    /// Systems that it may share keys with; `*` stands for any characters.
    #[serde(rename = "remoteSystemID")]
    pub remote_system_id: Vec<String>,
}

/// A pattern of system ids: text in which `*` stands for any characters, also none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SystemPattern(String);

impl NewKey {
    /// Parses the query of `GET /key`.
    ///
    /// # Errors
    /// If `remoteSystemID` is missing, `size` is no number, or a parameter is unknown or stands twice.
    pub fn parse(query: &str) -> Result<Self, Malformed> {
        let mut query = Query::parse(query)?;
        let remote = remote(&mut query)?;
        let size_bits = query.number("size")?;
        query.end()?;
        Ok(Self { remote, size_bits })
    }
}

impl KeyById {
    /// Parses the last segment of the path and the query of `GET /key/{keyId}`.
    ///
    /// # Errors
    /// If the id is not 32 hexadecimal digits, or the query is wrong as in [`NewKey::parse`].
    pub fn parse(id: &str, query: &str) -> Result<Self, Malformed> {
        let id = key_id(id)?;
        let mut query = Query::parse(query)?;
        let remote = remote(&mut query)?;
        query.end()?;
        Ok(Self { id, remote })
    }
}

/// Parses the query of `GET /entropy`: how many bits of entropy are wanted.
///
/// # Errors
/// If `minentropy` is out of range or anything else stands there.
pub fn entropy_bits(query: &str) -> Result<u32, Malformed> {
    let mut query = Query::parse(query)?;
    let bits = query.number("minentropy")?.unwrap_or(ENTROPY_BITS_DEFAULT);
    query.end()?;
    if (1..=ENTROPY_BITS_MAX).contains(&bits) {
        Ok(bits)
    } else {
        Err(Malformed(format!("minentropy must be 1 to {ENTROPY_BITS_MAX} bits")))
    }
}

impl SystemPattern {
    /// Checks and wraps a pattern.
    ///
    /// # Errors
    /// If it is empty, longer than 128 bytes or has control characters.
    pub fn new(text: &str) -> Result<Self, Malformed> {
        if text.is_empty() || text.len() > SYSTEM_ID_MAX || text.chars().any(char::is_control) {
            return Err(Malformed(format!("a system id has 1 to {SYSTEM_ID_MAX} printable characters")));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text of the pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a system id is one that the pattern stands for. Takes time linear in both.
    #[must_use]
    pub fn covers(&self, id: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(rest) = parts.next().and_then(|first| id.strip_prefix(first)) else { return false };
        let mut parts: Vec<_> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        let mut rest = rest;
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

impl TryFrom<String> for SystemPattern {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        Self::new(&text)
    }
}

impl From<SystemPattern> for String {
    fn from(pattern: SystemPattern) -> Self {
        pattern.0
    }
}

/// A key id as SKIP writes it: 32 hexadecimal digits.
#[must_use]
pub fn key_id_text(id: KeyId) -> String {
    id.0.simple().to_string()
}

/// Body with a key. Written by hand so that no copy of the key stays behind; hexadecimal needs no escaping.
#[must_use]
pub fn key_body(id: KeyId, key: &SecretBytes) -> Zeroizing<String> {
    let bits = Zeroizing::new(key.expose(|bits| hex::encode(bits)));
    let mut body = Zeroizing::new(String::with_capacity(bits.len() + 64));
    for part in [r#"{"keyId":""#, &key_id_text(id), r#"","key":""#, &bits, r#""}"#] {
        body.push_str(part);
    }
    body
}

/// Reads a body with a key back.
///
/// # Errors
/// If it is no such body.
pub fn read_key_body(body: &[u8]) -> Result<(KeyId, SecretBytes), Malformed> {
    let malformed = || Malformed("the key provider's answer is malformed".to_owned());
    let raw: RawKey = serde_json::from_slice(body).map_err(|_| malformed())?;
    let key = hex::decode(raw.key.as_bytes()).map_err(|_| malformed())?;
    Ok((key_id(&raw.key_id)?, SecretBytes::from_vec(key)))
}

/// Body with entropy; `bits` is what was asked for.
#[must_use]
pub fn entropy_body(random: &SecretBytes, bits: u32) -> Zeroizing<String> {
    let text = Zeroizing::new(random.expose(|bits| hex::encode(bits)));
    let mut body = Zeroizing::new(String::with_capacity(text.len() + 64));
    for part in [r#"{"randomStr":""#, &text, r#"","minentropy":"#, &bits.to_string(), "}"] {
        body.push_str(part);
    }
    body
}

#[derive(Deserialize)]
struct RawKey {
    #[serde(rename = "keyId")]
    key_id: String,
    key: Zeroizing<String>,
}

fn remote(query: &mut Query) -> Result<String, Malformed> {
    let remote = query.text("remoteSystemID").ok_or_else(|| Malformed("remoteSystemID is missing".to_owned()))?;
    SystemPattern::new(&remote)?;
    Ok(remote)
}

fn key_id(text: &str) -> Result<KeyId, Malformed> {
    let id = if text.len() == 32 { Uuid::try_parse(text).ok() } else { None };
    id.map(KeyId).ok_or_else(|| Malformed("keyId must be 32 hexadecimal digits".to_owned()))
}

/// Bits of entropy that are given when the request names none.
pub const ENTROPY_BITS_DEFAULT: u32 = 256;
/// Most bits of entropy of one request.
pub const ENTROPY_BITS_MAX: u32 = 8_192;
const SYSTEM_ID_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "550e8400e29b41d4a716446655440000";

    #[test]
    fn requests_are_read() {
        let wanted = NewKey::parse("remoteSystemID=KP%20west%2F1&size=128").unwrap();
        assert_eq!(wanted, NewKey { remote: "KP west/1".to_owned(), size_bits: Some(128) });
        assert_eq!(NewKey::parse("remoteSystemID=b").unwrap().size_bits, None);
        let found = KeyById::parse(ID, "remoteSystemID=a").unwrap();
        assert_eq!((key_id_text(found.id).as_str(), found.remote.as_str()), (ID, "a"));
        assert_eq!(KeyById::parse(&ID.to_uppercase(), "remoteSystemID=a").unwrap(), found);
        assert_eq!(entropy_bits("").unwrap(), 256);
        assert_eq!(entropy_bits("minentropy=8192").unwrap(), 8_192);
    }

    #[test]
    fn wrong_requests_are_refused() {
        let long = format!("remoteSystemID={}", "a".repeat(129));
        for query in [
            "",
            "remoteSystemID",
            "remoteSystemID=",
            "remotesystemid=a",
            "remoteSystemID=a&remoteSystemID=b",
            "remoteSystemID=a&size=",
            "remoteSystemID=a&size=-8",
            "remoteSystemID=a&size=+8",
            "remoteSystemID=a&size=8x",
            "remoteSystemID=a&size=4294967296",
            "remoteSystemID=a&number=2",
            "remoteSystemID=%zz",
            "remoteSystemID=%0a",
            "remoteSystemID=%ff",
            "remoteSystemID=a%",
            &long,
        ] {
            assert!(NewKey::parse(query).is_err(), "{query}");
        }
        for id in [
            "",
            "550e8400-e29b-41d4-a716-446655440000",
            "550e8400e29b41d4a71644665544000",
            "zz0e8400e29b41d4a716446655440000",
        ] {
            assert!(KeyById::parse(id, "remoteSystemID=a").is_err(), "{id}");
        }
        for query in ["minentropy=0", "minentropy=8193", "minentropy=256&minentropy=256", "size=8", "minentropy=0x10"] {
            assert!(entropy_bits(query).is_err(), "{query}");
        }
    }

    #[test]
    fn bodies_are_pinned_and_read_back() {
        let id = KeyId(Uuid::try_parse(ID).unwrap());
        let body = key_body(id, &SecretBytes::copy_of(&[0xab, 0x01]));
        assert_eq!(*body, format!(r#"{{"keyId":"{ID}","key":"ab01"}}"#));
        let (again, key) = read_key_body(body.as_bytes()).unwrap();
        assert_eq!(again, id);
        key.expose(|key| assert_eq!(key, [0xab, 0x01]));
        for wrong in
            ["", "{}", r#"{"keyId":"1","key":"00"}"#, &body.replace("ab01", "ab0"), &body.replace("ab01", "xx")]
        {
            assert!(read_key_body(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let entropy = entropy_body(&SecretBytes::copy_of(&[1, 2, 3]), 20);
        assert_eq!(*entropy, r#"{"randomStr":"010203","minentropy":20}"#);
        let capabilities = Capabilities {
            entropy: true,
            key: true,
            algorithm: "QKD".to_owned(),
            local_system_id: "KP_east".to_owned(),
            remote_system_id: vec!["KP_*".to_owned()],
        };
        let text =
            r#"{"entropy":true,"key":true,"algorithm":"QKD","localSystemID":"KP_east","remoteSystemID":["KP_*"]}"#;
        assert_eq!(serde_json::to_string(&capabilities).unwrap(), text);
        assert_eq!(serde_json::from_str::<Capabilities>(text).unwrap(), capabilities);
    }

    #[test]
    fn patterns_cover_what_they_say() {
        let covers = |pattern: &str, id: &str| SystemPattern::new(pattern).unwrap().covers(id);
        for (pattern, id) in
            [("*", ""), ("*", "x"), ("a*", "a"), ("a*c", "abc"), ("a*b*c", "aXbYc"), ("**b", "ab"), ("ab", "ab")]
        {
            assert!(covers(pattern, id), "{pattern} {id}");
        }
        for (pattern, id) in [("a", "ab"), ("a*", "b"), ("a*a", "a"), ("a*b*c", "acb"), ("ab", "AB"), ("a*bc", "abx")] {
            assert!(!covers(pattern, id), "{pattern} {id}");
        }
        assert!(SystemPattern::new("").is_err());
    }

    #[test]
    fn any_text_is_parsed_or_refused() {
        proptest::proptest!(|(text in "\\PC{0,80}", id in "[0-9a-fA-F-]{30,38}")| {
            drop(NewKey::parse(&text));
            drop(KeyById::parse(&id, &text));
            drop(entropy_bits(&text));
            drop(read_key_body(text.as_bytes()));
        });
    }
}
