//! The tree `qkd_node`. Numbers of 64 bit and decimals are JSON strings, smaller numbers are JSON numbers (RFC 7951,
//! 6.1); identities carry the name of their module (RFC 7951, 6.8).

use serde::{Serialize, Serializer};
use types::id::Uuid;

use super::TYPES_MODULE;

macro_rules! identities {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                let name = match self {
                    $(Self::$variant => $text,)+
                };
                out.collect_str(&format_args!("{TYPES_MODULE}:{name}"))
            }
        }
    };
}

identities!(
    /// State of a node.
    NodeStatus {
        /// Just made.
        New = "NEW",
        /// It serves keys.
        Operating = "OPERATING",
        /// Taken down.
        Down = "DOWN",
        /// It cannot serve keys.
        Failure = "FAILURE",
        /// Gone for good.
        Out = "OUT",
    }
);
identities!(
    /// State of an application.
    AppStatus {
        /// It takes keys.
        On = "ON",
        /// It has taken none for a while.
        Disconnected = "DISCONNECTED",
        /// Its time is over.
        OutOfTime = "OUT-OF-TIME",
        /// Its session was left behind.
        Zombie = "ZOMBIE",
    }
);
identities!(
    /// Whose application it is.
    AppType {
        /// A pair of SAEs.
        Client = "CLIENT",
        /// The network itself.
        Internal = "INTERNAL",
    }
);
identities!(
    /// State of an interface.
    InterfaceStatus {
        /// Its module works.
        Enabled = "ENABLED",
        /// Switched off.
        Disabled = "DISABLED",
        /// Its module does not work.
        Failed = "FAILED",
    }
);
identities!(
    /// Kind of QKD module.
    InterfaceType {
        /// Continuous variables.
        ContinuousVariables = "CV-QKD",
        /// Discrete variables.
        DiscreteVariables = "DV-QKD",
        /// Coherent one way.
        CoherentOneWay = "DV-QKD-COW",
        /// Two ways.
        TwoWays = "DV-QKD-2Ws",
    }
);
identities!(
    /// State of a link.
    LinkStatus {
        /// It makes key.
        Active = "ACTIVE",
        /// It makes no key and has some left.
        Passive = "PASSIVE",
        /// It starts and has no key yet.
        Pending = "PENDING",
        /// It makes no key and has none.
        Off = "OFF",
    }
);
identities!(
    /// Kind of link.
    LinkType {
        /// A key that is relayed through nodes.
        Virtual = "VIRT",
        /// A quantum channel between two modules.
        Physical = "PHYS",
    }
);
identities!(
    /// What a module can be.
    RoleSupport {
        /// Alice.
        Transmitter = "TRANSMITTER",
        /// Bob.
        Receiver = "RECEIVER",
        /// Both.
        Transceiver = "TRANSCEIVER",
    }
);
identities!(
    /// What a module is on a link.
    QkdRole {
        /// Alice.
        Transmitter = "TRANSMITTER",
        /// Bob.
        Receiver = "RECEIVER",
    }
);

/// A decimal number with three digits behind the point, kept in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub i64);

impl Millis {
    /// The nearest such number; what is no number is 0.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and nothing measured is that large")]
    pub fn nearest(value: f64) -> Self {
        Self((value * 1_000.0).round() as i64)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let (sign, value) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        out.collect_str(&format_args!("{sign}{}.{:03}", value / 1_000, value % 1_000))
    }
}

/// A QKD node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Its id.
    pub qkdn_id: Uuid,
    /// Its state.
    pub qkdn_status: NodeStatus,
    /// Version of its program.
    pub qkdn_version: String,
    /// Where it is.
    pub qkdn_location_id: String,
    /// What it can do.
    pub qkdn_capabilities: Capabilities,
    /// Applications that it serves.
    pub qkd_applications: Applications,
    /// Interfaces of its QKD modules.
    pub qkd_interfaces: Interfaces,
    /// Links that end here or pass.
    pub qkd_links: Links,
}

/// What a node can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// It reports figures of links.
    pub link_stats_support: bool,
    /// It reports figures of applications.
    pub application_stats_support: bool,
    /// It relays keys.
    pub key_relay_mode_enable: bool,
}

/// The list of applications.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Applications {
    /// Its entries.
    pub qkd_app: Vec<Application>,
}

/// The list of interfaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Interfaces {
    /// Its entries.
    pub qkd_interface: Vec<Interface>,
}

/// The list of links.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Links {
    /// Its entries.
    pub qkd_link: Vec<Link>,
}

/// A pair of SAEs, or the network's own use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Application {
    /// Its id.
    pub app_id: Uuid,
    /// Its state.
    pub app_status: AppStatus,
    /// Whose it is.
    pub app_type: AppType,
    /// The master SAE, as a URI.
    pub server_app_id: String,
    /// The slave SAEs, as URIs.
    pub client_app_id: Vec<String>,
    /// Priority.
    pub app_priority: u32,
    /// First use since the node's process started (RFC 3339).
    pub creation_time: String,
    /// What it consumed.
    pub app_statistics: Statistics,
    /// Links that carry its keys.
    pub backing_qkdl_id: Vec<Uuid>,
    /// Node of the master SAE.
    pub local_qkdn_id: Uuid,
    /// Node of the slave SAE.
    pub remote_qkdn_id: Uuid,
}

/// What an application consumed, by interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// Its entries.
    pub statistics: Vec<StatisticsInterval>,
}

/// What an application consumed in one interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatisticsInterval {
    /// When it ended or will end (RFC 3339).
    pub end_time: String,
    /// When it began.
    pub start_time: String,
    /// Key bits taken; at the top of its range it stays.
    pub consumed_bits: u32,
}

/// The interface of a QKD module.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interface {
    /// Its number at the node.
    pub qkdi_id: u32,
    /// Its state.
    pub qkdi_status: InterfaceStatus,
    /// Its model.
    pub qkdi_model: String,
    /// Its kind.
    pub qkdi_type: InterfaceType,
    /// Where it is attached.
    pub qkdi_att_point: AttachmentPoint,
    /// What it can do.
    pub qkdi_capabilities: InterfaceCapabilities,
}

/// Where an interface is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttachmentPoint {
    /// Device.
    pub device: String,
    /// Port of the device.
    pub port: String,
}

/// What an interface can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceCapabilities {
    /// Alice, Bob or both.
    pub role_support: RoleSupport,
    /// Wavelengths in nm.
    pub wavelength_range: String,
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceEnd {
    /// The node.
    pub qkdn_id: Uuid,
    /// The interface; a virtual link has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qkdi_id: Option<u32>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// Its id, the same at both ends.
    pub qkdl_id: Uuid,
    /// Its state.
    pub qkdl_status: LinkStatus,
    /// Whether it is switched on.
    pub qkdl_enable: bool,
    /// The near end.
    pub qkdl_local: InterfaceEnd,
    /// The far end.
    pub qkdl_remote: InterfaceEnd,
    /// Its kind.
    pub qkdl_type: LinkType,
    /// Applications whose keys it carries.
    pub qkdl_applications: Vec<Uuid>,
    /// Virtual: the node before this one on the path; none where the path begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virt_prev_hop: Option<Uuid>,
    /// Virtual: the nodes after this one on the path; none where it ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virt_next_hop: Vec<Uuid>,
    /// Physical: attenuation of the quantum channel in dB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phys_channel_att: Option<Millis>,
    /// Physical: wavelength in nm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phys_wavelength: Option<Millis>,
    /// Physical: what the near module is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phys_qkd_role: Option<QkdRole>,
    /// Figures.
    pub qkdl_performance: Performance,
}

/// Figures of a link. What is not measured is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Performance {
    /// What consumes it, in bit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_consumption: Option<u32>,
    /// Secret key rate in bit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skr: Option<u32>,
    /// Secret key rate that is left after what the network itself consumes, in bit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eskr: Option<u32>,
    /// Physical figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phys_perf: Vec<PhysicalPerformance>,
}

/// One physical figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PhysicalPerformance {
    /// Which one.
    pub perf_type: PerfType,
    /// Its value: a share for QBER.
    pub value: Millis,
}

identities!(
    /// Which physical figure.
    PerfType {
        /// Quantum bit error rate.
        Qber = "QBER",
        /// Signal to noise ratio.
        Snr = "SNR",
    }
);
