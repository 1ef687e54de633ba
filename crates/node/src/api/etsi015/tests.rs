//! The tree of the middle site of a line, from facts made by hand; what a controller is told when they change.

use std::collections::BTreeMap;
use std::time::Duration;

use etsi::etsi015::{LinkStatus, LinkType, Node, Notification, stable_id};
use kms::{LinkStock, LinkUse};
use types::id::{KeyId, LinkId, SaeId, SiteId, Uuid};
use types::network::Network;
use types::quantum::Role;
use types::units::{BitLen, UtcNanos};

use super::build::Facts;
use super::changes::Told;
use crate::pairs::{Holders, Pairs};
use crate::report::{BlockReport, FlowReport, KeyCounters, LinkReport, PairReport, ServiceReport, SiteReport};

const LINE: &str = include_str!("../../../tests/data/line.toml");

fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

struct World {
    network: Network,
    stocks: Vec<LinkStock>,
    links: Vec<LinkReport>,
    sites: Vec<SiteReport>,
    pairs: Pairs,
    now: UtcNanos,
}

impl World {
    fn new() -> Self {
        let link = |link: &str, peer: &str, role| LinkReport {
            link: LinkId::new(link).unwrap(),
            role,
            peer: site(peer),
            length_km: 50.0,
            up: true,
            lit: true,
            qber: Some(0.03),
            secret_bit_s: Some(1_000.0),
            progress: 0.0,
            blocks: 3,
            aborted: 0,
            last_abort: None,
            last_alarm: None,
            last_block: Some(BlockReport {
                block: 2,
                rule: String::new(),
                sifted: 0,
                qber: 0.03,
                leak_factor: None,
                secret: 1_000,
                kept: 100,
                light_s: 1.0,
            }),
            stock_out_bits: 0,
            stock_in_bits: 0,
            time_scale: None,
        };
        let stock = |link: &str, peer: &str| LinkStock {
            link: LinkId::new(link).unwrap(),
            peer: site(peer),
            up: true,
            bits_out: BitLen(100),
            bits_in: BitLen(100),
            blocks: 1,
            reached: true,
            used: LinkUse::default(),
        };
        let path = ["east", "middle", "west"].map(site).to_vec();
        let report = |name: &str, pairs| SiteReport {
            site: site(name),
            made: UtcNanos(0),
            version: String::new(),
            links: Vec::new(),
            pairs,
            keys: KeyCounters::default(),
            models: Vec::new(),
            terminals: Vec::new(),
            audit: Vec::new(),
            audit_entries: 0,
            service: ServiceReport::default(),
        };
        let pair =
            |peer: &str, path| PairReport { peer: site(peer), ready: 8, target: 8, path, flow: FlowReport::default() };
        let neighbour = vec![site("middle"), site("west")];
        Self {
            network: Network::parse(LINE).unwrap(),
            stocks: vec![stock("east-middle", "east"), stock("middle-west", "west")],
            links: vec![link("east-middle", "east", Role::Bob), link("middle-west", "west", Role::Alice)],
            sites: vec![report("east", vec![pair("west", path)]), report("middle", vec![pair("west", neighbour)])],
            pairs: Pairs::default(),
            now: UtcNanos(1_000_000_000_000),
        }
    }

    fn tree(&self, of: &str) -> Node {
        let home = |sae: &str| (SaeId::new(sae).unwrap(), site(sae.split('-').next_back().unwrap()));
        Facts {
            network: &self.network,
            site: &site(of),
            stocks: &self.stocks,
            links: &self.links,
            sites: &self.sites,
            pairs: &self.pairs.all(),
            homes: &BTreeMap::from(["app-east", "app-middle", "app-west"].map(home)),
            consumption: &BTreeMap::from([(LinkId::new("middle-west").unwrap(), 300.0)]),
            now: self.now,
        }
        .tree()
    }

    fn take_a_key(&self, master: &str, slave: &str) {
        let slave = SaeId::new(slave).unwrap();
        let request = kms::SupplyRequest::Decrypt { master: SaeId::new(master).unwrap(), ids: Vec::new() };
        let holders = Holders::of(&slave, &request).unwrap();
        let key = crypto::secret::SecretBytes::copy_of(&[1; 32]);
        let site = SiteId::new("east").unwrap();
        let origin =
            kms::KeyOrigin { source: site.clone(), target: site, paths: Vec::new(), combined: 0, age: Duration::ZERO };
        self.pairs.note(&holders, &[kms::SuppliedKey { id: KeyId(Uuid::nil()), key, origin }], self.now);
    }
}

#[test]
fn the_relay_sees_both_links_and_the_path_through_it() {
    let world = World::new();
    let tree = world.tree("middle");
    assert_eq!(tree.qkdn_id, stable_id("line", "node", "middle"));
    let links = &tree.qkd_links.qkd_link;
    assert_eq!(links.len(), 3);
    let west = &links[1];
    assert_eq!(west.qkdl_id, stable_id("line", "link", "middle-west"));
    assert_eq!((west.qkdl_local.qkdi_id, west.qkdl_remote.qkdi_id), (Some(2), Some(1)));
    let performance = &west.qkdl_performance;
    // A tenth is kept for authentication, 300 bit/s are spent on relays.
    assert_eq!(
        (performance.skr, performance.eskr, performance.expected_consumption),
        (Some(1_000), Some(600), Some(300))
    );
    let path = &links[2];
    assert_eq!(path.qkdl_type, LinkType::Virtual);
    assert_eq!(path.virt_prev_hop, Some(stable_id("line", "node", "east")));
    assert_eq!(path.virt_next_hop, [stable_id("line", "node", "west")]);
    let seen_from = |of: &str| world.tree(of).qkd_links.qkd_link.into_iter().find(|link| link.qkdl_id == path.qkdl_id);
    let (east, west) = (seen_from("east").unwrap(), seen_from("west").unwrap());
    assert_eq!((east.virt_prev_hop, east.virt_next_hop.len()), (None, 1));
    assert_eq!((west.virt_prev_hop, west.virt_next_hop.len()), (Some(tree.qkdn_id), 0));
    assert_eq!(west.qkdl_remote.qkdn_id, stable_id("line", "node", "east"));
}

#[test]
fn states_of_a_link() {
    let mut world = World::new();
    let status = |world: &World| world.tree("middle").qkd_links.qkd_link[0].qkdl_status;
    assert_eq!(status(&world), LinkStatus::Active);
    world.stocks[0].up = false;
    assert_eq!(status(&world), LinkStatus::Passive);
    (world.stocks[0].bits_out, world.stocks[0].bits_in) = (BitLen(0), BitLen(0));
    assert_eq!(status(&world), LinkStatus::Off);
    (world.stocks[0].up, world.links[0].blocks) = (true, 0);
    assert_eq!(status(&world), LinkStatus::Pending);
}

#[test]
fn applications_are_backed_by_links_and_paths() {
    let world = World::new();
    world.take_a_key("app-east", "app-west");
    world.take_a_key("app-middle", "app-west");
    let tree = world.tree("middle");
    let apps = &tree.qkd_applications.qkd_app;
    assert_eq!(apps[0].backing_qkdl_id, [tree.qkd_links.qkd_link[2].qkdl_id]);
    assert_eq!(apps[1].backing_qkdl_id, [tree.qkd_links.qkd_link[1].qkdl_id]);
    assert_eq!(tree.qkd_links.qkd_link[1].qkdl_applications, [apps[1].app_id]);
    assert_eq!(apps[0].app_statistics.statistics[0].consumed_bits, 256);
    assert_eq!(apps[0].creation_time, "1970-01-01T00:16:40Z");
}

#[test]
fn a_controller_is_told_of_changes_once() {
    let mut world = World::new();
    let mut told = Told::default();
    let none = BTreeMap::new();
    let first = told.changes(&world.tree("middle"), &none);
    assert_eq!(first.len(), 2, "figures of both links: {first:?}");
    assert!(told.changes(&world.tree("middle"), &none).is_empty());

    world.take_a_key("app-east", "app-west");
    let new = told.changes(&world.tree("middle"), &none);
    assert!(matches!(new.as_slice(), [Notification::ApplicationNew(_)]), "{new:?}");
    world.now = UtcNanos(world.now.0 + 11 * 60 * 1_000_000_000);
    let idle = told.changes(&world.tree("middle"), &none);
    assert!(matches!(idle.as_slice(), [Notification::ApplicationDisconnected { .. }]), "{idle:?}");

    world.stocks[0].up = false;
    let down = told.changes(&world.tree("middle"), &none);
    let link = stable_id("line", "link", "east-middle");
    assert_eq!(down, [Notification::LinkDown { qkdl_id: link }]);
    world.sites[0].pairs.clear();
    let gone = told.changes(&world.tree("middle"), &none);
    assert_eq!(gone, [Notification::LinkDown { qkdl_id: stable_id("line", "path", "east west") }]);

    let alarms = BTreeMap::from([(link, "blinded".to_owned())]);
    assert!(matches!(told.changes(&world.tree("middle"), &alarms).as_slice(), [Notification::Alarm(_)]));
    assert!(told.changes(&world.tree("middle"), &alarms).is_empty());

    world.links[1].last_block.as_mut().unwrap().kept = 900;
    let full = told.changes(&world.tree("middle"), &alarms);
    assert!(matches!(full.as_slice(), [Notification::LinkOverloaded { .. }]), "{full:?}");
}
