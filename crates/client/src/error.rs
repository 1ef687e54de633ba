//! Why a call failed, sorted by what the caller can do about it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use etsi::etsi014::{Call, ErrorBody, Reason, text};
use rustls::AlertDescription;

/// An error underneath.
pub(crate) type Source = Box<dyn StdError + Send + Sync>;

/// What a KME said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The KME.
    pub server: String,
    /// The path asked.
    pub path: String,
    /// HTTP status.
    pub status: u16,
    /// Its words; empty if it gave none.
    pub body: ErrorBody,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.body.line();
        let said = if said.is_empty() { "no reason given" } else { &said };
        write!(f, "{} refused {}: {}: {said}", self.server, self.path, self.status)
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The KME does not let this SAE do that; asking again does not help.
    #[error("{0}")]
    Unauthorised(Refused),
    /// The request is wrong, or asks for what this KME does not supply; asking again does not help.
    #[error("{0}")]
    Malformed(Refused),
    /// The KME does not hold a key asked for: never held, delivered before, or expired.
    #[error("{0}")]
    KeysNotFound(Refused),
    /// There is not enough key now. Nothing was consumed.
    #[error("{refused}")]
    NotEnough {
        /// When to ask again.
        retry_after: Duration,
        /// What the KME said.
        refused: Refused,
    },
    /// The KME answers, and cannot do it now. Nothing was consumed.
    #[error("{refused}")]
    Busy {
        /// When to ask again, if the KME said so.
        retry_after: Option<Duration>,
        /// What the KME said.
        refused: Refused,
    },
    /// The KME was not reached, or no answer came.
    #[error("{what}")]
    Unavailable {
        /// What happened, naming the KME.
        what: String,
        /// Whether the request may have arrived: keys of it are lost if so.
        sent: bool,
        /// The error underneath.
        #[source]
        source: Option<Source>,
    },
    /// One end does not accept the other's certificate.
    #[error("TLS handshake with {server}")]
    Handshake {
        /// The KME.
        server: String,
        /// The error underneath.
        #[source]
        source: Source,
    },
    /// The KME answers what the standard does not allow.
    #[error("{server}: {what}")]
    Protocol {
        /// The KME.
        server: String,
        /// What is wrong.
        what: String,
    },
    /// Certificates, key or address given to this client are not usable.
    #[error("{what}")]
    Setup {
        /// What is not usable.
        what: String,
        /// The error underneath.
        #[source]
        source: Option<Source>,
    },
}

impl Error {
    /// When the KME asks to be asked again, if it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotEnough { retry_after, .. } => Some(*retry_after),
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What a KME said, if it said anything.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Unauthorised(refused) | Self::Malformed(refused) | Self::KeysNotFound(refused) => Some(refused),
            Self::NotEnough { refused, .. } | Self::Busy { refused, .. } => Some(refused),
            _ => None,
        }
    }

    /// Sorts an answer that is not 200. `call` is `None` for resources beside the standard's.
    pub(crate) fn of_answer(call: Option<Call>, retry_after: Option<Duration>, refused: Refused) -> Self {
        let reason = refused.body.reason();
        match refused.status {
            401 | 403 => Self::Unauthorised(refused),
            400 if reason == Some(Reason::KeyNotFound) || refused.body.message == text::KEYS_NOT_FOUND => {
                Self::KeysNotFound(refused)
            }
            // ETSI GS QKD 014, 5.5 asks for 400; some makers say 404.
            404 if call == Some(Call::DecKeys) && reason.is_none() => Self::KeysNotFound(refused),
            503 | 429 if reason == Some(Reason::NotEnoughKey) => {
                Self::NotEnough { retry_after: retry_after.unwrap_or(RETRY), refused }
            }
            408 | 429 | 500.. => Self::Busy { retry_after, refused },
            _ => Self::Malformed(refused),
        }
    }

    /// Sorts what went wrong on a connection.
    pub(crate) fn of_connection(server: &str, path: &str, sent: bool, source: Source) -> Self {
        if is_handshake(source.as_ref()) {
            return Self::Handshake { server: server.to_owned(), source };
        }
        Self::Unavailable { what: format!("{server} did not answer {path}"), sent, source: Some(source) }
    }
}

/// Whether the other end refused our certificate. With TLS 1.3 a client learns it only when it reads.
fn is_handshake(error: &(dyn StdError + 'static)) -> bool {
    let mut below = Some(error);
    while let Some(error) = below {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let alert = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = alert {
            return REFUSALS.contains(alert);
        }
        below = error.source();
    }
    false
}

const REFUSALS: [AlertDescription; 9] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    // An authority of the same name with another key.
    AlertDescription::DecryptError,
    AlertDescription::AccessDenied,
    AlertDescription::CertificateRequired,
];
/// When to ask again if the KME does not say.
const RETRY: Duration = Duration::from_secs(1);
