//! From what a site knows to the tree of ETSI GS QKD 015.

use std::collections::BTreeMap;

use etsi::etsi015::{
    AppStatus, AppType, Application, Applications, AttachmentPoint, Capabilities, Interface, InterfaceCapabilities,
    InterfaceEnd, InterfaceStatus, InterfaceType, Interfaces, Link, LinkStatus, LinkType, Links, Millis, Node,
    NodeStatus, PerfType, Performance, PhysicalPerformance, QkdRole, RoleSupport, Statistics, StatisticsInterval,
    stable_id,
};
use kms::LinkStock;
use types::id::{LinkId, SaeId, SiteId, Uuid};
use types::network::Network;
use types::quantum::Role;
use types::units::UtcNanos;

use crate::clock::rfc3339;
use crate::pairs::{INTERVAL, Pair, PairUse};
use crate::report::{LinkReport, SiteReport};
use crate::tls::SAE_URN;

/// What the tree is made of.
pub(super) struct Facts<'a> {
    pub(super) network: &'a Network,
    pub(super) site: &'a SiteId,
    /// Link key left here.
    pub(super) stocks: &'a [LinkStock],
    /// Ends of links here.
    pub(super) links: &'a [LinkReport],
    /// What each site said last, this one too.
    pub(super) sites: &'a [SiteReport],
    /// Pairs of SAEs that took keys here.
    pub(super) pairs: &'a BTreeMap<Pair, PairUse>,
    /// Which site serves which SAE.
    pub(super) homes: &'a BTreeMap<SaeId, SiteId>,
    /// Bits a second that relays consume of each link.
    pub(super) consumption: &'a BTreeMap<LinkId, f64>,
    pub(super) now: UtcNanos,
}

impl Facts<'_> {
    pub(super) fn tree(&self) -> Node {
        let apps = self.applications();
        let mut links = self.physical_links();
        links.extend(self.virtual_links());
        for link in &mut links {
            let backed = apps.iter().filter(|app| app.backing_qkdl_id.contains(&link.qkdl_id));
            link.qkdl_applications = backed.map(|app| app.app_id).collect();
        }
        let makes_or_has_key = links.iter().any(|link| {
            link.qkdl_type == LinkType::Physical && matches!(link.qkdl_status, LinkStatus::Active | LinkStatus::Passive)
        });
        let site = self.network.sites().get(self.site);
        Node {
            qkdn_id: self.node_id(self.site),
            qkdn_status: if makes_or_has_key { NodeStatus::Operating } else { NodeStatus::Failure },
            qkdn_version: env!("CARGO_PKG_VERSION").to_owned(),
            qkdn_location_id: site.map(|site| site.name.clone()).unwrap_or_default(),
            qkdn_capabilities: Capabilities {
                link_stats_support: true,
                application_stats_support: true,
                key_relay_mode_enable: true,
            },
            qkd_applications: Applications { qkd_app: apps },
            qkd_interfaces: Interfaces { qkd_interface: self.interfaces() },
            qkd_links: Links { qkd_link: links },
        }
    }

    fn node_id(&self, site: &SiteId) -> Uuid {
        stable_id(self.network.name(), "node", site.as_str())
    }

    /// The id of a link, which alarms also name.
    pub(super) fn link_id(&self, link: &LinkId) -> Uuid {
        stable_id(self.network.name(), "link", link.as_str())
    }

    fn path_id(&self, from: &SiteId, to: &SiteId) -> Uuid {
        stable_id(self.network.name(), "path", &format!("{from} {to}"))
    }

    /// The number of a link's interface at a site: its place among the site's links by id, from 1.
    fn interface_of(&self, site: &SiteId, link: &LinkId) -> Option<u32> {
        let at = self.network.links_of(site).position(|(found, _)| found.id == *link)?;
        u32::try_from(at + 1).ok()
    }

    fn report(&self, link: &LinkId) -> Option<&LinkReport> {
        self.links.iter().find(|report| report.link == *link)
    }

    fn interfaces(&self) -> Vec<Interface> {
        let links = self.network.links_of(self.site);
        let interface = |(link, role): (&types::network::Link, Role)| {
            let report = self.report(&link.id);
            Some(Interface {
                qkdi_id: self.interface_of(self.site, &link.id)?,
                qkdi_status: match report {
                    Some(report) if report.up => InterfaceStatus::Enabled,
                    Some(_) => InterfaceStatus::Failed,
                    None => InterfaceStatus::Disabled,
                },
                qkdi_model: String::new(),
                qkdi_type: InterfaceType::DiscreteVariables,
                qkdi_att_point: AttachmentPoint { device: self.site.to_string(), port: link.id.to_string() },
                qkdi_capabilities: InterfaceCapabilities {
                    role_support: match role {
                        Role::Alice => RoleSupport::Transmitter,
                        Role::Bob => RoleSupport::Receiver,
                    },
                    wavelength_range: format!("{:.2}", link.hardware.wavelength_nm),
                },
            })
        };
        links.filter_map(interface).collect()
    }

    fn physical_links(&self) -> Vec<Link> {
        let link = |(link, role): (&types::network::Link, Role)| {
            let far = link.other_end(self.site)?;
            let stock = self.stocks.iter().find(|stock| stock.link == link.id);
            let report = self.report(&link.id);
            let end = |site: &SiteId| InterfaceEnd {
                qkdn_id: self.node_id(site),
                qkdi_id: self.interface_of(site, &link.id),
            };
            Some(Link {
                qkdl_id: self.link_id(&link.id),
                qkdl_status: status(stock, report),
                qkdl_enable: report.is_some(),
                qkdl_local: end(self.site),
                qkdl_remote: end(far),
                qkdl_type: LinkType::Physical,
                qkdl_applications: Vec::new(),
                virt_prev_hop: None,
                virt_next_hop: Vec::new(),
                phys_channel_att: Some(Millis::nearest(link.length.0 * link.hardware.attenuation_db_per_km)),
                phys_wavelength: Some(Millis::nearest(link.hardware.wavelength_nm)),
                phys_qkd_role: Some(match role {
                    Role::Alice => QkdRole::Transmitter,
                    Role::Bob => QkdRole::Receiver,
                }),
                qkdl_performance: report.map(|report| self.performance(report)).unwrap_or_default(),
            })
        };
        self.network.links_of(self.site).filter_map(link).collect()
    }

    fn performance(&self, report: &LinkReport) -> Performance {
        let qber =
            report.qber.map(|qber| PhysicalPerformance { perf_type: PerfType::Qber, value: Millis::nearest(qber) });
        let phys_perf = qber.into_iter().collect();
        let rate = if report.up { report.secret_bit_s } else { Some(0.0) };
        let Some(rate) = rate else { return Performance { phys_perf, ..Performance::default() } };
        let kept = report.last_block.as_ref().map_or(0.0, |block| share(block.kept, block.secret));
        let for_pool = rate * (1.0 - kept);
        let consumption = self.consumption.get(&report.link).copied().unwrap_or_default();
        Performance {
            expected_consumption: Some(whole(consumption)),
            skr: Some(whole(rate)),
            eskr: Some(whole(for_pool - consumption)),
            phys_perf,
        }
    }

    /// Every path through this site that needs a relay; each has one owner, the site at its beginning.
    fn virtual_links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        for owner in self.sites {
            for pair in owner.pairs.iter().filter(|pair| pair.path.len() > 2) {
                let Some(at) = pair.path.iter().position(|site| site == self.site) else { continue };
                let next = pair.path.get(at + 1);
                // The far end, seen from here: where the path leads, or where it came from.
                let far = if next.is_some() { &pair.peer } else { &owner.site };
                links.push(Link {
                    qkdl_id: self.path_id(&owner.site, &pair.peer),
                    qkdl_status: if pair.ready > 0 { LinkStatus::Active } else { LinkStatus::Pending },
                    qkdl_enable: true,
                    qkdl_local: InterfaceEnd { qkdn_id: self.node_id(self.site), qkdi_id: None },
                    qkdl_remote: InterfaceEnd { qkdn_id: self.node_id(far), qkdi_id: None },
                    qkdl_type: LinkType::Virtual,
                    qkdl_applications: Vec::new(),
                    virt_prev_hop: at.checked_sub(1).and_then(|at| pair.path.get(at)).map(|site| self.node_id(site)),
                    virt_next_hop: next.map(|site| self.node_id(site)).into_iter().collect(),
                    phys_channel_att: None,
                    phys_wavelength: None,
                    phys_qkd_role: None,
                    qkdl_performance: Performance::default(),
                });
            }
        }
        links
    }

    fn applications(&self) -> Vec<Application> {
        let app = |((master, slave), used): (&Pair, &PairUse)| {
            let (near, far) = (self.homes.get(master)?, self.homes.get(slave)?);
            let idle = self.now.0.saturating_sub(used.last.0) > IDLE_NANOS;
            Some(Application {
                app_id: stable_id(self.network.name(), "app", &format!("{}\n{}", master.as_str(), slave.as_str())),
                app_status: if idle { AppStatus::Disconnected } else { AppStatus::On },
                app_type: AppType::Client,
                server_app_id: uri(master),
                client_app_id: vec![uri(slave)],
                app_priority: 0,
                creation_time: rfc3339(used.first),
                app_statistics: Statistics { statistics: used.intervals.iter().map(interval).collect() },
                backing_qkdl_id: self.backing(near, far),
                local_qkdn_id: self.node_id(near),
                remote_qkdn_id: self.node_id(far),
            })
        };
        self.pairs.iter().filter_map(app).collect()
    }

    /// The link between neighbours, or the path of the pair of sites; nothing at one site.
    fn backing(&self, near: &SiteId, far: &SiteId) -> Vec<Uuid> {
        let owner = self.sites.iter().find(|report| report.site == *near);
        let Some(pair) = owner.and_then(|owner| owner.pairs.iter().find(|pair| pair.peer == *far)) else {
            return Vec::new();
        };
        match pair.path.as_slice() {
            [] | [_] => Vec::new(),
            [a, b] => {
                let joins = |link: &&types::network::Link| link.other_end(a) == Some(b);
                self.network.links().values().filter(joins).map(|link| self.link_id(&link.id)).collect()
            }
            _ => vec![self.path_id(near, far)],
        }
    }
}

fn status(stock: Option<&LinkStock>, report: Option<&LinkReport>) -> LinkStatus {
    let makes = stock.map_or_else(|| report.is_some_and(|report| report.up), |stock| stock.up);
    let has = stock.is_some_and(|stock| stock.bits_out.0 + stock.bits_in.0 > 0);
    let made = report.is_some_and(|report| report.blocks > 0) || has;
    match (makes, made, has) {
        (true, true, _) => LinkStatus::Active,
        (true, false, _) => LinkStatus::Pending,
        (false, _, true) => LinkStatus::Passive,
        (false, _, false) => LinkStatus::Off,
    }
}

fn interval(interval: &crate::pairs::Interval) -> StatisticsInterval {
    let length = u64::try_from(INTERVAL.as_nanos()).unwrap_or_default();
    StatisticsInterval {
        end_time: rfc3339(UtcNanos(interval.start.0.saturating_add(length))),
        start_time: rfc3339(interval.start),
        consumed_bits: u32::try_from(interval.bits).unwrap_or(u32::MAX),
    }
}

/// An SAE as a URI; what a URI may not hold is percent-encoded.
fn uri(sae: &SaeId) -> String {
    format!("{SAE_URN}{}", etsi::etsi014::encode_segment(sae.as_str()))
}

#[expect(clippy::cast_precision_loss, reason = "a share for people, far from 53 bits")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, also below zero")]
fn whole(bits_per_second: f64) -> u32 {
    bits_per_second.round() as u32
}

/// A pair of SAEs that took no key for so long counts as disconnected.
const IDLE_NANOS: u64 = 10 * 60 * 1_000_000_000;
