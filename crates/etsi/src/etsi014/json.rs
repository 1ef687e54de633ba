//! JSON as it comes from the network: bounded in size and depth before a parser sees it.

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use std::fmt;

use super::error::BadRequest;

/// Most bytes of a request's body.
pub const BODY_MAX: usize = 256 * 1024;
/// Deepest nesting of arrays and objects in a request's body.
pub const DEPTH_MAX: usize = 16;

/// Reads a JSON object. An empty body stands for an empty object (ETSI GS QKD 014, 5.4: all defaults).
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadRequest> {
    let body = body.trim_ascii();
    let body = if body.is_empty() { b"{}" } else { body };
    if body.len() > BODY_MAX {
        return Err(BadRequest::malformed(format!("the body has more than {BODY_MAX} bytes")));
    }
    // A list would be taken for an object's members in order.
    if body.first() != Some(&b'{') {
        return Err(BadRequest::malformed("the body is no JSON object"));
    }
    if depth(body) > DEPTH_MAX {
        return Err(BadRequest::malformed(format!("the body nests deeper than {DEPTH_MAX}")));
    }
    serde_json::from_slice(body).map_err(|error| BadRequest::malformed(error.to_string()))
}

/// How deep brackets nest outside strings.
pub(super) fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A whole number that is not negative. `2.0` is whole; text, `null` and `2.5` are not.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    struct Count;
    impl Visitor<'_> for Count {
        type Value = u32;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number, not negative")
        }
        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u32, E> {
            u32::try_from(number).map_err(|_| E::custom("the number is too large"))
        }
        fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<u32, E> {
            whole(number).ok_or_else(|| E::custom("a whole number is needed, not negative and not too large"))
        }
    }
    // `deserialize_any`: JSON says itself what it holds.
    deserializer.deserialize_any(Count).map(Some)
}

/// A float that is a whole number of 32 bits.
fn whole(number: f64) -> Option<u32> {
    let text = (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number)).then(|| format!("{number}"))?;
    text.parse().ok()
}

/// A list, not `null`, of at most `N` members.
pub(super) fn list<'de, D, T, const N: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    let found = Vec::<T>::deserialize(deserializer)?;
    if found.len() > N {
        return Err(D::Error::custom(format_args!("more than {N} members")));
    }
    Ok(found)
}

use serde::Deserialize as _;
