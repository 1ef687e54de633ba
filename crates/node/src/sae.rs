//! Acting as an SAE: clients of key management entities from configuration, and what people are told when one
//! refuses.
//!
//! | exit code | a command ends with it when |
//! |---|---|
//! | 3 | the KME refuses for good: not authorised, or a request that it never meets |
//! | 4 | the KME does not hold a key asked for |
//! | 5 | there is not enough key, or the KME cannot do it now: try again |
//! | 6 | the KME is not reached, or one end refuses the other's certificate |

use client::{Credentials, Error, Kme, Reason, Server};

use crate::config::{DeviceConfig, SaeConfig};
use crate::failure::{Failure, Outcome};
use crate::tls;

/// A client with the SAE's certificate; connects at its first request.
///
/// # Errors
/// If a certificate or key file is missing or does not fit.
pub fn client(config: &SaeConfig) -> Outcome<Kme> {
    Ok(Kme::new(config.kme.into(), &Credentials::from(tls::client(&config.tls)?))?)
}

/// A client of a QKD device of another maker. Which SAE it acts for stands in its certificate.
///
/// # Errors
/// If a certificate or key file is missing or does not fit.
pub fn device_client(device: &DeviceConfig) -> Outcome<Kme> {
    tls::own_sae(&device.tls)?;
    let server = Server::new(device.kme.host(), device.kme.port());
    Ok(Kme::new(server, &Credentials::from(tls::client(&device.tls)?))?)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, remedy) = match &error {
            Error::Unauthorised(_) => (
                REFUSED,
                Some("use the SAE's own certificate at the KME that serves it; [sae] in node.toml lists them"),
            ),
            Error::Malformed(refused) => (REFUSED, remedy(refused.body.reason())),
            Error::KeysNotFound(_) => (
                NOT_FOUND,
                Some("a key can be collected once, by the slave SAE that it was taken for, while it is kept"),
            ),
            Error::NotEnough { .. } => (AGAIN, Some("ask again later, for fewer keys, or with --wait")),
            Error::Busy { .. } => (AGAIN, Some("ask again later")),
            Error::Unavailable { sent: false, .. } => (UNREACHED, Some("is that site's process running?")),
            Error::Unavailable { .. } => {
                (UNREACHED, Some("is that site's process running? keys of a lost answer are lost: ask for new ones"))
            }
            Error::Handshake { .. } => {
                (UNREACHED, Some("check that certificate and authority come from the same `qurrent network init`"))
            }
            _ => (1, None),
        };
        let failure = Failure::new(error.to_string()).exit_code(code);
        let failure = match error {
            Error::Unavailable { source: Some(source), .. }
            | Error::Handshake { source, .. }
            | Error::Setup { source: Some(source), .. } => failure.source(source),
            _ => failure,
        };
        match remedy {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        }
    }
}

fn remedy(reason: Option<Reason>) -> Option<&'static str> {
    match reason? {
        Reason::UnknownSae => Some("check the SAE's name; [sae] in node.toml lists all of the network"),
        Reason::OutOfRange => Some("`qurrent key status` shows how many keys of which sizes there are"),
        Reason::ExtensionUnmet => Some("ask with --prefer instead, or for another way or age"),
        _ => None,
    }
}

const REFUSED: u8 = 3;
const NOT_FOUND: u8 = 4;
const AGAIN: u8 = 5;
const UNREACHED: u8 = 6;
