//! Licences of everything that is compiled, packages that are refused, and DEPENDENCIES.md, which says why each
//! direct dependency is there.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::Finding;
use super::tree::{File, Tree};

/// SPDX names of licences that ask for nothing but to be named.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Zlib",
];

/// Exceptions (`WITH`) that take nothing back.
const ALLOWED_EXCEPTIONS: [&str; 1] = ["LLVM-exception"];

/// Packages that are not to be used whatever their manifest says.
const REFUSED: [(&str, &str); 2] =
    [("dnp3", "its licence is for non-commercial use"), ("rodbus", "its licence is for non-commercial use")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = check_packages(tree);
    if let Some(document) = tree.file(DOCUMENT) {
        findings.extend(check_document(tree, document));
    } else if tree.graph.members().next().is_some() {
        findings.push(Finding::error(RULE, DOCUMENT, 0, "the file is missing".to_owned()));
    }
    findings
}

fn check_packages(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &tree.graph.packages {
        let line = tree.file(LOCK).map_or(0, |lock| lock.line_beginning(&format!("name = \"{}\"", package.name)));
        let found = |message| Finding::error(RULE, LOCK, line, message);
        let (name, version) = (&package.name, &package.version);
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| refused == name) {
            findings.push(found(format!("`{name}` is refused: {reason}")));
        }
        match package.licence.as_deref() {
            None => findings.push(found(format!("`{name}` {version} states no licence"))),
            Some(licence) if !is_allowed(licence) => {
                findings.push(found(format!("`{name}` {version} has the licence `{licence}`, which is not allowed")));
            }
            Some(_) => {}
        }
    }
    findings
}

fn check_document(tree: &Tree, document: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut users = BTreeMap::new();
    for member in tree.graph.members() {
        for dependency in member.dependencies.iter().filter(|dependency| dependency.is_third_party) {
            users.entry(dependency.name.as_str()).or_insert(member.manifest.as_str());
        }
    }
    for (name, manifest) in &users {
        if !document.text.contains(&format!("`{name}`")) {
            let line = tree.file(manifest).map_or(0, |manifest| manifest.line_beginning(name));
            let message = format!("`{name}` has no line in {DOCUMENT}: why it and not its rivals");
            findings.push(Finding::error(RULE, manifest, line, message));
        }
    }
    let listed = workspace_dependencies(tree);
    for (line, name) in rows(document) {
        if !users.contains_key(name.as_str()) && !listed.contains(&name) {
            let message = format!("`{name}` is no dependency any more: remove its line");
            findings.push(Finding::error(RULE, DOCUMENT, line, message));
        }
    }
    let Some(root) = tree.file("Cargo.toml") else { return findings };
    for name in listed.iter().filter(|name| !users.contains_key(name.as_str())) {
        let message = format!("`{name}` is listed for the workspace and used by no crate");
        findings.push(Finding::warning(RULE, &root.path, root.line_beginning(&format!("{name} =")), message));
    }
    findings
}

/// Third-party names under `[workspace.dependencies]`.
fn workspace_dependencies(tree: &Tree) -> BTreeSet<String> {
    let manifest: Table = tree.file("Cargo.toml").map_or_else(Table::new, |file| file.text.parse().unwrap_or_default());
    let listed = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies")?.as_table());
    let is_third_party = |entry: &Value| entry.get("path").is_none();
    listed.into_iter().flatten().filter(|(_, entry)| is_third_party(entry)).map(|(name, _)| name.clone()).collect()
}

/// The names in the first cell of each row, with their lines, in the sections that begin with [`SECTION`].
fn rows(document: &File) -> Vec<(usize, String)> {
    let mut rows = Vec::new();
    let mut in_section = false;
    for (index, line) in document.text.lines().enumerate() {
        if line.starts_with("## ") {
            in_section = line.starts_with(SECTION);
        }
        let Some(cell) = line.strip_prefix("| ").and_then(|line| line.split('|').next()).filter(|_| in_section) else {
            continue;
        };
        rows.extend(cell.split('`').skip(1).step_by(2).map(|name| (index + 1, name.to_owned())));
    }
    rows
}

/// Whether an SPDX expression leaves a choice that is allowed. `/` is the old spelling of `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest).unwrap_or(false) && rest.is_empty()
}

/// One or more terms with `OR` between them. `None` if the expression is malformed.
fn any_of(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = all_of(rest)?;
    while next_if(rest, "OR") {
        allowed |= all_of(rest)?;
    }
    Some(allowed)
}

fn all_of(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = licence(rest)?;
    while next_if(rest, "AND") {
        allowed &= licence(rest)?;
    }
    Some(allowed)
}

fn licence(rest: &mut &[&str]) -> Option<bool> {
    if next_if(rest, "(") {
        let allowed = any_of(rest)?;
        return next_if(rest, ")").then_some(allowed);
    }
    let (name, after) = rest.split_first()?;
    *rest = after;
    let mut allowed = ALLOWED.contains(name);
    if next_if(rest, "WITH") {
        let (exception, after) = rest.split_first()?;
        *rest = after;
        allowed &= ALLOWED_EXCEPTIONS.contains(exception);
    }
    Some(allowed)
}

fn next_if(rest: &mut &[&str], word: &str) -> bool {
    let matches = rest.first() == Some(&word);
    if matches {
        *rest = &rest[1..];
    }
    matches
}

const RULE: &str = "licences";
const DOCUMENT: &str = "DEPENDENCIES.md";
const LOCK: &str = "Cargo.lock";
const SECTION: &str = "## Crates";

#[cfg(test)]
mod tests {
    use super::super::graph::{Graph, Kind, Package};
    use super::super::{Severity, places};
    use super::*;

    #[test]
    fn expressions_are_weighed() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "ISC AND (Apache-2.0 OR ISC)",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "Apache-2.0 WITH Commons-Clause",
            "(MIT OR Apache-2.0",
            "MIT OR",
            "MIT Apache-2.0",
            "LicenseRef-non-commercial",
        ] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    fn graph_with(name: &str, licence: Option<&str>) -> Graph {
        let package = Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: licence.map(str::to_owned),
            manifest: "x/Cargo.toml".to_owned(),
            is_member: false,
            dependencies: Vec::new(),
        };
        Graph { packages: vec![package], ..Graph::default() }
    }

    #[test]
    fn packages_are_refused_by_licence_and_by_name() {
        let lock = "[[package]]\nname = \"dnp3\"\n";
        for (name, licence, errors) in
            [("a", Some("MIT"), 0), ("a", Some("GPL-3.0-only"), 1), ("a", None, 1), ("dnp3", Some("MIT"), 1)]
        {
            let tree = Tree { graph: graph_with(name, licence), ..Tree::of(&[(LOCK, lock)]) };
            assert_eq!(check(&tree).len(), errors, "{name} {licence:?}");
        }
        let tree = Tree { graph: graph_with("dnp3", Some("MIT")), ..Tree::of(&[(LOCK, lock)]) };
        assert_eq!(places(&check(&tree)), ["Cargo.lock:2"]);
    }

    #[test]
    fn every_direct_dependency_is_explained_and_no_other() {
        let graph = Graph::of(&[("types", &[("serde", Kind::Normal), ("uuid", Kind::Normal)]), ("link", &[])]);
        let tree = Tree {
            graph,
            ..Tree::of(&[
                ("crates/types/Cargo.toml", "[dependencies]\nserde = \"1\"\nuuid = \"1\"\n"),
                (
                    DOCUMENT,
                    "## Crates\n| crate | why |\n|---|---|\n| `serde` | x |\n| `gone` | x |\n## Peers\n| `c104` | x |\n",
                ),
            ])
        };
        assert_eq!(places(&check(&tree)), ["crates/types/Cargo.toml:3", "DEPENDENCIES.md:5"]);
    }

    #[test]
    fn a_listed_dependency_that_nobody_uses_warns() {
        let root = "[workspace.dependencies]\ntypes = { path = \"crates/types\" }\nhex = \"0.4\"\n";
        let tree = Tree { graph: Graph::of(&[("types", &[])]), ..Tree::of(&[("Cargo.toml", root), (DOCUMENT, "")]) };
        let findings = check(&tree);
        assert_eq!(places(&findings), ["Cargo.toml:3"]);
        assert_eq!(findings[0].severity, Severity::Warning);
    }

    #[test]
    fn the_document_must_be_there() {
        let tree = Tree { graph: Graph::of(&[("types", &[])]), ..Tree::default() };
        assert_eq!(places(&check(&tree)), ["DEPENDENCIES.md:0"]);
    }
}
