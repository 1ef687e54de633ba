//! Query strings (RFC 3986, 3.4): a few named parameters, each at most once, nothing unknown.

use super::Malformed;

/// The parameters of one request that nobody took yet.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        if text.len() > QUERY_MAX {
            return Err(Malformed(format!("the query is longer than {QUERY_MAX} bytes")));
        }
        let mut found: Vec<(String, String)> = Vec::new();
        for member in text.split('&').filter(|member| !member.is_empty()) {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if found.iter().any(|(other, _)| *other == name) {
                return Err(Malformed(format!("{name} stands twice")));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<u32>, Malformed> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.map(Some).ok_or_else(|| Malformed(format!("{name} must be a whole number")))
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        match self.0.first() {
            Some((name, _)) => Err(Malformed(format!("parameter {name:?} is not known here"))),
            None => Ok(()),
        }
    }
}

fn decode(text: &str) -> Result<String, Malformed> {
    decode_percent(text).ok_or_else(|| Malformed("a percent-encoded character is malformed".to_owned()))
}

/// Percent-decodes one component of a URI (RFC 3986, 2.1); `None` if it is malformed or no UTF-8. `+` stays `+`.
#[must_use]
pub fn decode_percent(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |digit: Option<u8>| char::from(digit?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push(high << 4 | low);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

const QUERY_MAX: usize = 2_048;
