//! What a site says of its links, byte by byte in `docs/formats/link-state.md`.

use types::codec::{CodecError, Reader, Writer};
use types::id::{LinkId, SiteId};
use types::units::{BitLen, BitsPerSecond};

/// Version of the format.
pub const VERSION: u8 = 2;
/// Most links of one site.
pub const LINKS_MAX: usize = 256;

/// What a site says of all its links.
#[derive(Clone, Debug, PartialEq)]
pub struct Advertisement {
    /// Who says it.
    pub origin: SiteId,
    /// Grows with every advertisement of the origin, over restarts too.
    pub seq: u64,
    /// Its links, each once.
    pub links: Vec<LinkReport>,
}

/// What a site says of one of its links.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkReport {
    /// Which link.
    pub link: LinkId,
    /// Whether messages reach the other end. A link that makes no key may still have stock to spend.
    pub up: bool,
    /// Key that the origin can spend to send over this link.
    pub stock: BitLen,
    /// Rate at which the link makes key; 0 while it makes none.
    pub rate: BitsPerSecond,
    /// Rate at which key of the origin's half was asked for lately, whether it was there or not.
    pub demand: BitsPerSecond,
}

impl Advertisement {
    /// The advertisement as it is signed and sent.
    ///
    /// # Panics
    /// If it has more than [`LINKS_MAX`] links, which no site has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.links.len() <= LINKS_MAX, "a site has at most {LINKS_MAX} links");
        let mut w = Writer::new();
        w.u8(VERSION).bytes16(self.origin.as_str().as_bytes()).u64(self.seq).count(self.links.len());
        for report in &self.links {
            w.bytes16(report.link.as_str().as_bytes()).u8(u8::from(report.up)).u64(report.stock.0);
            w.u64(report.rate.0.to_bits()).u64(report.demand.0.to_bits());
        }
        w.finish()
    }

    /// Reads an advertisement.
    ///
    /// # Errors
    /// [`CodecError`] for anything that [`Advertisement::encode`] does not make from sound values.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        if r.u8("version")? != VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let origin = SiteId::new(r.text16("origin", 32)?).map_err(|_| CodecError::Value { field: "origin" })?;
        let seq = r.u64("seq")?;
        let count = r.count("links", LINKS_MAX)?;
        let mut links: Vec<LinkReport> = Vec::new();
        for _ in 0..count {
            let link = LinkId::new(r.text16("link", 32)?).map_err(|_| CodecError::Value { field: "link" })?;
            let up = match r.u8("up")? {
                0 => false,
                1 => true,
                _ => return Err(CodecError::Value { field: "up" }),
            };
            let stock = BitLen(r.u64("stock")?);
            let (rate, demand) = (rate(&mut r, "rate")?, rate(&mut r, "demand")?);
            if links.iter().any(|other| other.link == link) {
                return Err(CodecError::Value { field: "link" });
            }
            links.push(LinkReport { link, up, stock, rate, demand });
        }
        r.end()?;
        Ok(Self { origin, seq, links })
    }
}

fn rate(r: &mut Reader<'_>, field: &'static str) -> Result<BitsPerSecond, CodecError> {
    let rate = f64::from_bits(r.u64(field)?);
    if rate.is_finite() && rate.is_sign_positive() { Ok(BitsPerSecond(rate)) } else { Err(CodecError::Value { field }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Advertisement {
        let report = |link: &str, up| LinkReport {
            link: LinkId::new(link).unwrap(),
            up,
            stock: BitLen(5),
            rate: BitsPerSecond(1.0),
            demand: BitsPerSecond(2.0),
        };
        Advertisement {
            origin: SiteId::new("a").unwrap(),
            seq: 2,
            links: vec![report("a-b", true), report("a-c", false)],
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let wire = b"\x02\0\x01a\0\0\0\0\0\0\0\x02\0\0\0\x02\
            \0\x03a-b\x01\0\0\0\0\0\0\0\x05\x3f\xf0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\
            \0\x03a-c\0\0\0\0\0\0\0\0\x05\x3f\xf0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0";
        assert_eq!(example().encode(), wire);
        assert_eq!(Advertisement::decode(wire), Ok(example()));
    }

    #[test]
    fn a_wrong_advertisement_is_refused() {
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut wire = example().encode();
            change(&mut wire);
            wire
        };
        let cases = [
            ("another version", changed(|w| w[0] = 1)),
            ("no site id", changed(|w| w[3] = b'A')),
            ("more links than there are", changed(|w| w[15] = 3)),
            ("more links than allowed", changed(|w| w[14] = 2)),
            ("neither up nor down", changed(|w| w[21] = 2)),
            ("a negative rate", changed(|w| w[30] = 0xbf)),
            ("an infinite rate", changed(|w| w[30..32].copy_from_slice(&[0x7f, 0xf0]))),
            ("a negative demand", changed(|w| w[38] = 0xc0)),
            ("an infinite demand", changed(|w| w[38..40].copy_from_slice(&[0x7f, 0xf0]))),
            ("a link twice", changed(|w| w[50] = b'b')),
            ("a byte behind", changed(|w| w.push(0))),
        ];
        for (name, wire) in cases {
            assert!(Advertisement::decode(&wire).is_err(), "{name}");
        }
        let wire = example().encode();
        assert!((0..wire.len()).all(|end| Advertisement::decode(&wire[..end]).is_err()));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            crate::fuzzing::advertisement(&bytes);
        }

        #[test]
        fn a_changed_byte(at: prop::sample::Index, value: u8) {
            let mut wire = example().encode();
            let at = at.index(wire.len());
            wire[at] = value;
            crate::fuzzing::advertisement(&wire);
        }
    }
}
