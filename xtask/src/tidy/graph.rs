//! The dependency graph, from `cargo metadata` and `cargo tree`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::Failure;
use crate::command::CommandLine;

use super::layers;

/// Packages, and for each core what a build of it alone compiles.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) packages: Vec<Package>,
    /// Per core: every package it reaches by normal dependencies, itself left out.
    pub(super) reach: BTreeMap<String, Vec<Reached>>,
}

/// One package, ours or not.
#[derive(Clone, Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) licence: Option<String>,
    /// For members the path from the root.
    pub(super) manifest: String,
    pub(super) is_member: bool,
    pub(super) dependencies: Vec<Dependency>,
}

/// One line under a package's dependencies.
#[derive(Clone, Debug)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Not a package of the workspace.
    pub(super) is_third_party: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Build,
    Dev,
}

/// A package in a core's build, with the features it is built with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reached {
    pub(super) name: String,
    pub(super) features: Vec<String>,
}

impl Graph {
    pub(super) fn load(root: &Path) -> Result<Self, Failure> {
        let host = host(root)?;
        let metadata = CommandLine::new("cargo", &["metadata", "--format-version=1", "--filter-platform", &host]);
        let packages = parse_metadata(&metadata.read(root)?, root)?;
        let mut reach = BTreeMap::new();
        let members: BTreeSet<&str> = packages.iter().filter(|p| p.is_member).map(|p| p.name.as_str()).collect();
        for name in layers::cores().filter(|name| members.contains(name)) {
            let format = "--format={p}|{f}";
            let tree =
                CommandLine::new("cargo", &["tree", "--package", name, "--edges=normal", "--prefix=none", format]);
            reach.insert(name.to_owned(), parse_tree(&tree.read(root)?, name));
        }
        Ok(Self { packages, reach })
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.is_member)
    }

    /// For tests of checks: a graph of these members and their dependencies.
    #[cfg(test)]
    pub(super) fn of(members: &[(&str, &[(&str, Kind)])]) -> Self {
        let is_third_party = |name: &str| members.iter().all(|member| member.0 != name);
        let dependency = |&(name, kind): &(&str, Kind)| Dependency {
            name: name.to_owned(),
            kind,
            is_third_party: is_third_party(name),
        };
        let package = |&(name, dependencies): &(&str, &[(&str, Kind)])| Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            licence: Some("Apache-2.0".to_owned()),
            manifest: format!("crates/{name}/Cargo.toml"),
            is_member: true,
            dependencies: dependencies.iter().map(dependency).collect(),
        };
        Self { packages: members.iter().map(package).collect(), ..Self::default() }
    }
}

fn host(root: &Path) -> Result<String, Failure> {
    let version = CommandLine::new("rustc", &["-vV"]).read(root)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure("`rustc -vV` names no host".to_owned()))
}

fn parse_metadata(json: &str, root: &Path) -> Result<Vec<Package>, Failure> {
    let metadata: Metadata =
        serde_json::from_str(json).map_err(|error| Failure(format!("output of cargo metadata: {error}")))?;
    let prefix = format!("{}/", root.display());
    Ok(metadata
        .packages
        .into_iter()
        .map(|raw| Package {
            manifest: raw.manifest_path.strip_prefix(&prefix).unwrap_or(&raw.manifest_path).to_owned(),
            is_member: metadata.workspace_members.contains(&raw.id),
            name: raw.name,
            version: raw.version,
            licence: raw.license,
            dependencies: raw.dependencies.into_iter().map(RawDependency::into_dependency).collect(),
        })
        .collect())
}

fn parse_tree(text: &str, core: &str) -> Vec<Reached> {
    let reached: BTreeSet<Reached> = text
        .lines()
        .filter_map(|line| {
            let (package, features) = line.split_once('|')?;
            let features = features.trim_end_matches("(*)").trim();
            Some(Reached {
                name: package.split(' ').next()?.to_owned(),
                features: features.split(',').filter(|f| !f.is_empty()).map(str::to_owned).collect(),
            })
        })
        .filter(|reached| reached.name != core)
        .collect();
    reached.into_iter().collect()
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<RawPackage>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct RawPackage {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: String,
    dependencies: Vec<RawDependency>,
}

#[derive(Deserialize)]
struct RawDependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

impl RawDependency {
    fn into_dependency(self) -> Dependency {
        let kind = match self.kind.as_deref() {
            Some("dev") => Kind::Dev,
            Some("build") => Kind::Build,
            _ => Kind::Normal,
        };
        Dependency { name: self.name, kind, is_third_party: self.path.is_none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let json = r#"{"packages": [
            {"id": "a", "name": "kms", "version": "0.1.0", "license": "Apache-2.0", "manifest_path": "/x/crates/kms/Cargo.toml",
             "dependencies": [{"name": "types", "kind": null, "path": "/x/crates/types"}, {"name": "proptest", "kind": "dev"}]},
            {"id": "b", "name": "proptest", "version": "1.0.0", "license": null, "manifest_path": "/y/Cargo.toml", "dependencies": []}
        ], "workspace_members": ["a"]}"#;
        let packages = parse_metadata(json, Path::new("/x")).unwrap();
        assert_eq!((packages[0].manifest.as_str(), packages[0].is_member), ("crates/kms/Cargo.toml", true));
        let dependencies: Vec<_> = packages[0].dependencies.iter().map(|d| (d.kind, d.is_third_party)).collect();
        assert_eq!(dependencies, [(Kind::Normal, false), (Kind::Dev, true)]);
        assert_eq!((packages[1].is_member, &packages[1].licence), (false, &None));
    }

    #[test]
    fn a_tree_is_read() {
        let text = "kms v0.1.0 (/x)|\nserde v1.0.0|alloc,derive\nserde v1.0.0|alloc,derive (*)\nuuid v1.0.0|\n";
        let reached = parse_tree(text, "kms");
        assert_eq!(reached.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["serde", "uuid"]);
        assert_eq!(reached[0].features, ["alloc", "derive"]);
        assert!(reached[1].features.is_empty());
    }
}
