//! Resources: paths with percent-encoded SAE ids (RFC 3986, 2.1), and query members.

use types::id::SaeId;

use super::error::BadRequest;

/// What a resource is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Get status.
    Status,
    /// Get key.
    EncKeys,
    /// Get key with key IDs.
    DecKeys,
}

impl Call {
    /// The last segment of its path.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::EncKeys => "enc_keys",
            Self::DecKeys => "dec_keys",
        }
    }

    /// The methods that it has, as header `Allow` lists them.
    #[must_use]
    pub fn methods(self) -> &'static str {
        match self {
            Self::Status => "GET",
            Self::EncKeys | Self::DecKeys => "GET, POST",
        }
    }
}

/// A resource of this standard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// What is asked for.
    pub call: Call,
    /// The SAE in the path, still as it came.
    segment: String,
}

impl Resource {
    /// The resource of a path as it stands in the request line, without query; `None` if there is no such path.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let (segment, call) = path.strip_prefix(PREFIX)?.split_once('/')?;
        let call = [Call::Status, Call::EncKeys, Call::DecKeys].into_iter().find(|known| known.name() == call)?;
        (!segment.is_empty()).then(|| Self { call, segment: segment.to_owned() })
    }

    /// The path of a resource.
    #[must_use]
    pub fn path(call: Call, sae: &SaeId) -> String {
        format!("{PREFIX}{}/{}", encode_segment(sae.as_str()), call.name())
    }

    /// The SAE in the path.
    ///
    /// # Errors
    /// If it is no UTF-8, blank, too long or has control codes.
    pub fn sae(&self) -> Result<SaeId, BadRequest> {
        let text = decode(&self.segment, false).ok_or_else(|| BadRequest::malformed("the path is badly encoded"))?;
        sae(&text)
    }
}

/// Percent-encodes a text for one segment of a path: unreserved characters stay (RFC 3986, 2.3).
#[must_use]
pub fn encode_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Members of a query, decoded; each name may come once.
pub(super) fn query(query: &str) -> Result<Vec<(String, String)>, BadRequest> {
    let mut members: Vec<(String, String)> = Vec::new();
    for member in query.split('&').filter(|member| !member.is_empty()) {
        let (name, value) = member.split_once('=').unwrap_or((member, ""));
        let (Some(name), Some(value)) = (decode(name, true), decode(value, true)) else {
            return Err(BadRequest::malformed("the query is badly encoded"));
        };
        if members.iter().any(|(known, _)| *known == name) {
            return Err(BadRequest::malformed(format!("{} comes more than once in the query", short(&name))));
        }
        if members.len() == QUERY_MAX {
            return Err(BadRequest::malformed(format!("more than {QUERY_MAX} query members")));
        }
        members.push((name, value));
    }
    Ok(members)
}

/// An SAE id as clients write it.
pub(super) fn sae(text: &str) -> Result<SaeId, BadRequest> {
    if text.trim().is_empty() {
        return Err(BadRequest::malformed("an SAE id is blank"));
    }
    SaeId::new(text).map_err(|error| BadRequest::malformed(error.to_string()))
}

/// At most 40 characters of what a client sent, for an error.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
                out.push(high << 4 | low);
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

const PREFIX: &str = "/api/v1/keys/";
const QUERY_MAX: usize = 16;
