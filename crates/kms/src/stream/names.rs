//! From the URIs of an opening to the application that the caller wants key with.

use std::collections::BTreeMap;

use types::id::{SaeId, SiteId};

/// The other application of a stream. The caller is who its certificate says; a URI never makes it somebody else.
///
/// In a client/server scheme both sides may name the server first (ETSI GS QKD 004 V2.1.1, table 2), so either URI may
/// be the caller's. A URI of nobody known is taken for the caller's own.
pub(super) fn other_sae(
    directory: &BTreeMap<SaeId, SiteId>,
    caller: &SaeId,
    source: &str,
    destination: &str,
) -> Option<SaeId> {
    let other = match (named(directory, source), named(directory, destination)) {
        (Some(source), Some(destination)) if source == *caller => destination,
        (Some(source), Some(destination)) if destination == *caller => source,
        (None, Some(one)) | (Some(one), None) => one,
        _ => return None,
    };
    (other != *caller).then_some(other)
}

/// The SAE that a URI names: as it stands, after its scheme, before `@`, before `/`, `?`, `#` or `:`.
fn named(directory: &BTreeMap<SaeId, SiteId>, uri: &str) -> Option<SaeId> {
    let bare = uri.strip_prefix(SAE_URN).or_else(|| uri.split_once("//").map(|(_, rest)| rest)).unwrap_or(uri);
    let decoded = percent_decoded(bare);
    let user = bare.split('@').next().unwrap_or(bare);
    let host = user.split(['/', '?', '#', ':']).next().unwrap_or(user);
    [uri, bare, &decoded, user, host].into_iter().find_map(|text| {
        let sae = SaeId::new(text).ok()?;
        directory.contains_key(&sae).then_some(sae)
    })
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let escaped = (*byte == b'%').then(|| tail.split_at_checked(2)).flatten().and_then(|(digits, after)| {
            let digits = core::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        (rest, _) = match escaped {
            Some((byte, after)) => (after, out.push(byte)),
            None => (tail, out.push(*byte)),
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

const SAE_URN: &str = "urn:qurrent:sae:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_as_applications_write_them() {
        let site = SiteId::new("x").unwrap();
        let directory: BTreeMap<_, _> =
            ["a1", "b1", "rtu/1", "c 1"].map(|name| (SaeId::new(name).unwrap(), site.clone())).into();
        let cases = [
            ("qkd://a1", "qkd://b1", Some("b1")),
            ("qkd://b1", "qkd://a1", Some("b1")),
            ("qkd//a1@aaaa-aaaa", "qkd//b1@bbbb-bbbb", Some("b1")),
            ("a1", "b1", Some("b1")),
            ("client://localhost", "server://b1:25575/x", Some("b1")),
            ("client://b1", "server://127.0.0.1", Some("b1")),
            ("urn:qurrent:sae:a1", "urn:qurrent:sae:rtu/1", Some("rtu/1")),
            ("qkd://a1", "qkd://c%201", Some("c 1")),
            ("qkd://a1", "qkd://c%2", None),
            ("qkd://a1", "qkd://a1", None),
            ("qkd://x", "qkd://a1", None),
            ("qkd://b1", "qkd://rtu/1", None),
            ("", "", None),
            ("qkd://nobody", "qkd://nowhere", None),
        ];
        for (source, destination, wanted) in cases {
            let found = other_sae(&directory, &SaeId::new("a1").unwrap(), source, destination);
            assert_eq!(found.as_ref().map(SaeId::as_str), wanted, "{source} {destination}");
        }
    }
}
