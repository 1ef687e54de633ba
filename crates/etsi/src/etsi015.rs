//! ETSI GS QKD 015 V2.1.1: what a controller of a software-defined network sees of a QKD node, as JSON of RFC 7951
//! over RESTCONF (RFC 8040).
//!
//! | module | holds |
//! |---|---|
//! | `tree` | the typed tree `qkd_node`, written as the YANG module `etsi-qkd-sdn-node` names it |
//! | `notice` | notifications and their envelope |
//! | `resource` | paths of data resources, and what they select in the tree |
//! | `error` | error bodies of RESTCONF |
//!
//! Provided: reading of the whole tree and of any container, list entry or leaf in it; notifications of links,
//! applications and alarms; stable ids.
//! Not provided: configuration by the controller, quality of service of applications, entries that need a
//! controller (reserved bandwidth of virtual links).

mod error;
mod notice;
mod resource;
mod tree;

use crypto::domain::Domain;
use crypto::hash::labelled;
use types::id::Uuid;

pub use self::error::{ErrorTag, error_body};
pub use self::notice::{Alarm, AlarmSubject, Notification, Severity, envelope};
pub use self::resource::{ResourceError, select};
pub use self::tree::{
    AppStatus, AppType, Application, Applications, AttachmentPoint, Capabilities, Interface, InterfaceCapabilities,
    InterfaceEnd, InterfaceStatus, InterfaceType, Interfaces, Link, LinkStatus, LinkType, Links, Millis, Node,
    NodeStatus, PerfType, Performance, PhysicalPerformance, QkdRole, RoleSupport, Statistics, StatisticsInterval,
};

/// Name of the YANG module, which qualifies top-level members.
pub const MODULE: &str = "etsi-qkd-sdn-node";
/// Name of the YANG module of identities, which qualifies identity references.
pub const TYPES_MODULE: &str = "etsi-qkd-node-types";

/// A UUID that names a thing for ever: the same at every node and after every restart, made from the network's name,
/// the kind of thing and its own name.
#[must_use]
pub fn stable_id(network: &str, kind: &str, name: &str) -> Uuid {
    let digest = labelled(Domain::EtsiName, &[network.as_bytes(), kind.as_bytes(), name.as_bytes()]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // RFC 9562, 5.8: version 8, whose bits are the maker's own.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
