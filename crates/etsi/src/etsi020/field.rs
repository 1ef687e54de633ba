//! Fields that were checked when they were made: ids of SAEs, callback URLs, key ids, key values, bounded lists.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::secret::SecretBytes;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use types::id::{KeyId, SaeId, Uuid};
use zeroize::Zeroizing;

use super::KEY_BYTES_MAX;

/// Why a text is no such field. Holds nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {rule}")]
pub struct FieldError {
    what: &'static str,
    rule: &'static str,
}

impl FieldError {
    pub(super) const fn new(what: &'static str, rule: &'static str) -> Self {
        Self { what, rule }
    }
}

/// An SAE id as it may cross networks: 1 to 64 characters of a URI (ETSI GS QKD 020, SAE IDs).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferSae(SaeId);

impl TransferSae {
    /// Checks an id.
    ///
    /// # Errors
    /// If it is too long or has a character that no URI may have.
    pub fn new(id: SaeId) -> Result<Self, FieldError> {
        let error = FieldError { what: "SAE id", rule: "1 to 64 characters that a URI may have" };
        if id.as_str().len() <= SAE_MAX && is_of_uri(id.as_str()) { Ok(Self(id)) } else { Err(error) }
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &SaeId {
        &self.0
    }
}

impl Serialize for TransferSae {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for TransferSae {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = BoundedText::<SAE_MAX>::deserialize(from)?.0;
        let id = SaeId::new(&text).map_err(|_| de::Error::custom("SAE id"))?;
        Self::new(id).map_err(de::Error::custom)
    }
}

/// A complete `https://` URL to which acknowledgements go, at most 1,024 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackUrl {
    text: String,
    path_at: usize,
}

impl CallbackUrl {
    /// Checks a URL.
    ///
    /// # Errors
    /// If it does not start with `https://`, names no host, has user information or a fragment, or a character that
    /// no URI may have.
    pub fn new(text: &str) -> Result<Self, FieldError> {
        let error = FieldError { what: "ack_callback_url", rule: "a complete https:// URL of up to 1024 characters" };
        let rest = text.strip_prefix(SCHEME).ok_or(error)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        let fits = text.len() <= URL_MAX
            && is_of_uri(text)
            && !text.contains('#')
            && !authority.is_empty()
            && !authority.starts_with(':')
            && authority.chars().all(is_host);
        let path_at = SCHEME.len() + authority.len();
        if fits { Ok(Self { text: text.to_owned(), path_at }) } else { Err(error) }
    }

    /// The URL of a path of a host and port.
    ///
    /// # Errors
    /// As [`CallbackUrl::new`].
    pub fn of(authority: &str, path: &str) -> Result<Self, FieldError> {
        Self::new(&format!("{SCHEME}{authority}{path}"))
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host and port, in small letters; the port is written even if it is that of HTTPS.
    #[must_use]
    pub fn authority(&self) -> String {
        with_port(&self.text[SCHEME.len()..self.path_at])
    }

    /// Path and query, `/` if there is none.
    #[must_use]
    pub fn path(&self) -> String {
        let path = &self.text[self.path_at..];
        if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
    }
}

/// Host and port of an authority as [`CallbackUrl::authority`] gives it.
fn with_port(authority: &str) -> String {
    let after_host = authority.rsplit(']').next().unwrap_or_default();
    let text = authority.to_ascii_lowercase();
    if after_host.contains(':') { text } else { format!("{text}:443") }
}

impl Serialize for CallbackUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for CallbackUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(&BoundedText::<URL_MAX>::deserialize(from)?.0).map_err(de::Error::custom)
    }
}

/// Characters that RFC 3986 allows, `%` only before two hexadecimal digits.
fn is_of_uri(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        byte => byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(byte),
    })
}

/// A text of at most `MAX` characters.
pub(super) struct BoundedText<const MAX: usize>(pub(super) String);

impl<'de, const MAX: usize> Deserialize<'de> for BoundedText<MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text<const MAX: usize>;
        impl<const MAX: usize> Visitor<'_> for Text<MAX> {
            type Value = String;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a text of at most {MAX} characters")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
                let fits = text.len() <= 4 * MAX && text.chars().count() <= MAX;
                if fits { Ok(text.to_owned()) } else { Err(E::custom("a text is too long")) }
            }
        }
        from.deserialize_str(Text::<MAX>).map(Self)
    }
}

/// A list of at most `MAX` elements.
pub(super) struct BoundedList<T, const MAX: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} elements")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = elements.next_element()? {
                    if list.len() == MAX {
                        return Err(de::Error::custom("a list is too long"));
                    }
                    list.push(element);
                }
                Ok(list)
            }
        }
        from.deserialize_seq(List::<T, MAX>(PhantomData)).map(Self)
    }
}

/// A UUID in the form of RFC 9562, clause 4: 36 characters with hyphens.
pub(super) struct UuidText(pub(super) KeyId);

impl<'de> Deserialize<'de> for UuidText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = BoundedText::<UUID_LEN>::deserialize(from)?.0;
        let id = Uuid::try_parse(&text).ok().filter(|_| text.len() == UUID_LEN);
        id.map(|id| Self(KeyId(id))).ok_or_else(|| de::Error::custom("key_id is no UUID"))
    }
}

/// Key bits, decoded from base64 where they stand: the text is borrowed from the body, so that no copy of it is made.
pub(super) struct KeyValue(pub(super) SecretBytes);

impl<'de> Deserialize<'de> for KeyValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Value;
        impl<'de> Visitor<'de> for Value {
            type Value = SecretBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("key bits as base64")
            }
            // Only this one: what has escapes left is no base64 anyway, and would lie in the parser's buffer.
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<SecretBytes, E> {
                key_bits(text).ok_or_else(|| E::custom("value is no key as base64"))
            }
        }
        // A refusal must not quote what stands in place of a key.
        from.deserialize_str(Value).map(Self).map_err(|_| de::Error::custom("value is no key as base64"))
    }
}

fn key_bits(text: &str) -> Option<SecretBytes> {
    if text.is_empty() || text.len() > KEY_BYTES_MAX.div_ceil(3) * 4 {
        return None;
    }
    let mut bytes = Zeroizing::new(vec![0; text.len().div_ceil(4) * 3]);
    let len = STANDARD.decode_slice(text, &mut bytes).ok()?;
    (1..=KEY_BYTES_MAX).contains(&len).then(|| SecretBytes::copy_of(&bytes[..len]))
}

/// The same JSON without needless escapes: `\/`, and `\u00XX` of a printable ASCII character, become the character.
///
/// Some encoders write the `+` of base64 as `\u002B`. Without escapes a parser borrows texts instead of copying them.
pub(super) fn without_needless_escapes(body: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(body.len()));
    let mut rest = body;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match after {
            [b'/', ..] => {
                out.push(b'/');
                rest = &after[1..];
            }
            [b'u', b'0', b'0', high, low, ..] => {
                let digits = [*high, *low];
                let code = std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                match code.filter(|code| (b' '..=b'~').contains(code) && !b"\"\\".contains(code)) {
                    Some(code) if digits.iter().all(u8::is_ascii_hexdigit) => {
                        out.push(code);
                        rest = &after[5..];
                    }
                    _ => out.push(b'\\'),
                }
            }
            [escaped, ..] => {
                out.extend([b'\\', *escaped]);
                rest = &after[1..];
            }
            [] => out.push(b'\\'),
        }
    }
    out
}

const SAE_MAX: usize = 64;
const URL_MAX: usize = 1_024;
const UUID_LEN: usize = 36;
const SCHEME: &str = "https://";
