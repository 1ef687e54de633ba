//! The table of crates, foundation first, and the arrows of dependency between them.
//!
//! A crate may depend on those above it in the table, by any kind of dependency, and on nothing below. Some arrows
//! that the order would allow are refused by name, each with its reason.

use super::Finding;
use super::graph::{Dependency, Kind, Package};
use super::tree::Tree;

/// A crate's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    layer: &'static str,
    name: &'static str,
    kind: CrateKind,
}

/// How a crate reaches the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CrateKind {
    /// Not at all: time, randomness and bytes come in as arguments.
    Core,
    /// Through one trait of a well-kept library.
    IoBearing,
    /// Directly.
    Shell,
}

const PLACES: [Place; 16] = [
    Place { layer: "foundation", name: "kernels", kind: CrateKind::Core },
    Place { layer: "foundation", name: "types", kind: CrateKind::Core },
    Place { layer: "foundation", name: "crypto", kind: CrateKind::Core },
    Place { layer: "quantum", name: "optics", kind: CrateKind::Core },
    Place { layer: "quantum", name: "link", kind: CrateKind::Core },
    Place { layer: "key management", name: "etsi", kind: CrateKind::Core },
    Place { layer: "key management", name: "client", kind: CrateKind::IoBearing },
    Place { layer: "key management", name: "store", kind: CrateKind::IoBearing },
    Place { layer: "key management", name: "kms", kind: CrateKind::Core },
    Place { layer: "control", name: "control", kind: CrateKind::Core },
    Place { layer: "management", name: "ledger", kind: CrateKind::IoBearing },
    Place { layer: "service", name: "terminal", kind: CrateKind::Core },
    Place { layer: "service", name: "gateway", kind: CrateKind::Core },
    Place { layer: "service", name: "vault", kind: CrateKind::IoBearing },
    Place { layer: "test", name: "sim", kind: CrateKind::Core },
    Place { layer: "shell", name: "node", kind: CrateKind::Shell },
];

/// The project's tooling: beside the layers, it depends on none of them.
const TOOLING: &str = "xtask";

/// An arrow that is refused although it points down.
struct Refused {
    from: &'static str,
    to: &'static str,
    /// A dev-dependency is refused too.
    in_tests_too: bool,
    /// Refused through other crates as well.
    through_others: bool,
    reason: &'static str,
}

const REFUSED: [Refused; 4] = [
    Refused {
        from: "kms",
        to: "link",
        in_tests_too: true,
        through_others: true,
        reason: "secret blocks come in as inputs, so that a vendor's QKD module fits; test them together in `sim`",
    },
    Refused {
        from: "kms",
        to: "store",
        in_tests_too: true,
        through_others: true,
        reason: "durable records go out as outputs, so that another store fits; test them together in `node`",
    },
    Refused {
        from: "link",
        to: "optics",
        in_tests_too: false,
        through_others: true,
        reason: "post-processing does not know that photons are simulated; only its tests may",
    },
    Refused {
        from: "control",
        to: "crypto",
        in_tests_too: false,
        through_others: true,
        reason: "what routes keys must not be able to name one",
    },
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in tree.graph.members() {
        let own = package.dependencies.iter().filter(|dependency| !dependency.is_third_party);
        if package.name == TOOLING {
            findings.extend(own.map(|to| found(tree, package, &to.name, "the tooling builds without the product")));
            continue;
        }
        let Some(rank) = rank(&package.name) else {
            let message = format!("`{}` has no layer: give it a line in {TABLE}", package.name);
            findings.push(Finding::error(RULE, &package.manifest, 0, message));
            continue;
        };
        for dependency in own {
            findings.extend(check_arrow(tree, package, rank, dependency));
        }
        findings.extend(check_reach(tree, package));
    }
    findings
}

fn check_arrow(tree: &Tree, package: &Package, from: usize, dependency: &Dependency) -> Option<Finding> {
    let to = rank(&dependency.name);
    if to.is_none_or(|to| to >= from) {
        let layer = to.map_or("no layer", |to| PLACES[to].layer);
        let reason = format!("{} ({layer}) is not below {} ({})", dependency.name, package.name, PLACES[from].layer);
        return Some(found(tree, package, &dependency.name, &reason));
    }
    let is_refused = |refused: &&Refused| {
        let counts = refused.in_tests_too || dependency.kind != Kind::Dev;
        refused.from == package.name && refused.to == dependency.name && counts
    };
    REFUSED.iter().find(is_refused).map(|refused| found(tree, package, refused.to, refused.reason))
}

/// Refused arrows that lead through other crates.
fn check_reach(tree: &Tree, package: &Package) -> Vec<Finding> {
    let reached = tree.graph.reach.get(&package.name).map_or(&[][..], Vec::as_slice);
    let is_direct = |name: &str| package.dependencies.iter().any(|dependency| dependency.name == name);
    REFUSED
        .iter()
        .filter(|refused| refused.from == package.name && refused.through_others && !is_direct(refused.to))
        .filter(|refused| reached.iter().any(|reached| reached.name == refused.to))
        .map(|refused| {
            let message = format!("`{}` reaches `{}` through others: {}", package.name, refused.to, refused.reason);
            Finding::error(RULE, &package.manifest, 0, message)
        })
        .collect()
}

fn found(tree: &Tree, package: &Package, to: &str, reason: &str) -> Finding {
    let line = tree.file(&package.manifest).map_or(0, |manifest| manifest.line_beginning(to));
    Finding::error(RULE, &package.manifest, line, format!("`{}` depends on `{to}`: {reason}", package.name))
}

fn rank(name: &str) -> Option<usize> {
    PLACES.iter().position(|place| place.name == name)
}

/// Names of the cores.
pub(super) fn cores() -> impl Iterator<Item = &'static str> {
    PLACES.iter().filter(|place| place.kind == CrateKind::Core).map(|place| place.name)
}

const RULE: &str = "layers";
const TABLE: &str = "xtask/src/tidy/layers.rs";

#[cfg(test)]
mod tests {
    use super::super::graph::{Graph, Reached};
    use super::*;

    fn findings(members: &[(&str, &[(&str, Kind)])]) -> Vec<String> {
        let tree = Tree { graph: Graph::of(members), ..Tree::default() };
        check(&tree).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn arrows_down_pass() {
        let members: &[(&str, &[(&str, Kind)])] = &[
            ("types", &[("serde", Kind::Normal)]),
            ("optics", &[("types", Kind::Normal)]),
            ("link", &[("types", Kind::Normal), ("optics", Kind::Dev)]),
        ];
        assert_eq!(findings(members), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_up_is_refused_with_its_line() {
        let graph = Graph::of(&[("types", &[("kms", Kind::Dev)]), ("kms", &[])]);
        let manifest = ("crates/types/Cargo.toml", "[dev-dependencies]\nkms.workspace = true\n");
        let tree = Tree { graph, ..Tree::of(&[manifest]) };
        let findings = check(&tree);
        assert_eq!(super::super::places(&findings), ["crates/types/Cargo.toml:2"]);
        assert!(findings[0].message.contains("kms (key management) is not below types (foundation)"));
    }

    #[test]
    fn kms_knows_neither_link_nor_store_even_in_tests() {
        let members: &[(&str, &[(&str, Kind)])] =
            &[("kms", &[("link", Kind::Dev), ("store", Kind::Normal)]), ("link", &[]), ("store", &[])];
        assert_eq!(findings(members).len(), 2);
    }

    #[test]
    fn link_knows_optics_only_in_tests() {
        assert_eq!(findings(&[("link", &[("optics", Kind::Normal)]), ("optics", &[])]).len(), 1);
    }

    #[test]
    fn control_reaches_no_crypto_by_a_detour() {
        let mut graph = Graph::of(&[("control", &[])]);
        let crypto = Reached { name: "crypto".to_owned(), features: Vec::new() };
        graph.reach.insert("control".to_owned(), vec![crypto]);
        let findings = check(&Tree { graph, ..Tree::default() });
        assert!(findings[0].message.contains("reaches `crypto` through others"), "{findings:?}");
    }

    #[test]
    fn every_crate_has_a_layer_and_the_tooling_stands_apart() {
        assert!(findings(&[("novel", &[])])[0].contains("has no layer"));
        assert_eq!(findings(&[("xtask", &[("types", Kind::Normal)]), ("types", &[])]).len(), 1);
        assert_eq!(findings(&[("node", &[("xtask", Kind::Normal)]), ("xtask", &[])]).len(), 1);
    }
}
