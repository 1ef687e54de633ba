//! Every crate inherits the workspace's lints; what hangs on them is set, and `unsafe` stays out.
//!
//! Long functions are left to `clippy::too_many_lines`; here only its threshold is checked, in each `clippy.toml`,
//! because a crate's own file replaces the root's.

use toml::{Table, Value};

use super::Finding;
use super::tree::{File, Tree};

/// The crates that may hold `unsafe` once they exist: vector kernels, and the binding to librados.
const UNSAFE_CRATES: [&str; 2] = ["kernels", "rados"];

/// Lints that the rules rely on, with the levels that they may have in the workspace's manifest.
const RELIED_ON: [(&str, &str, &[&str]); 8] = [
    ("rust", "unsafe_code", &["forbid"]),
    ("rust", "missing_docs", &["warn", "deny"]),
    ("clippy", "unwrap_used", &["warn", "deny"]),
    ("clippy", "todo", &["deny"]),
    ("clippy", "unimplemented", &["deny"]),
    ("clippy", "dbg_macro", &["deny"]),
    ("clippy", "disallowed_methods", &["deny"]),
    ("clippy", "too_many_lines", &["warn", "deny"]),
];

const FUNCTION_LINES_MAX: i64 = 90;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(manifest) = tree.file("Cargo.toml") {
        findings.extend(check_workspace(manifest));
    }
    for manifest in tree.graph.members().filter_map(|member| tree.file(&member.manifest)) {
        findings.extend(check_member(manifest));
    }
    for file in tree.files.iter().filter(|file| file.path == "clippy.toml" || file.path.ends_with("/clippy.toml")) {
        findings.extend(check_threshold(file));
    }
    for file in tree.rust_files().filter(|file| !file.crate_name().is_some_and(|name| UNSAFE_CRATES.contains(&name))) {
        let found = |line| {
            let message = format!("`unsafe` is forbidden outside the crates {}", UNSAFE_CRATES.join(", "));
            Finding::error(RULE, &file.path, line, message)
        };
        findings.extend(file.source.lines_with("unsafe").into_iter().map(found));
    }
    findings
}

fn check_workspace(manifest: &File) -> Vec<Finding> {
    let table = parse(manifest);
    let lints = lookup(&table, &["workspace", "lints"]);
    RELIED_ON
        .iter()
        .filter(|(tool, lint, levels)| {
            let entry = lints.and_then(|lints| lints.get(tool)?.get(lint));
            let level = entry.and_then(|entry| entry.as_str().or_else(|| entry.get("level")?.as_str()));
            !level.is_some_and(|level| levels.contains(&level))
        })
        .map(|(tool, lint, levels)| {
            let message = format!("[workspace.lints.{tool}] must set `{lint}` to {}", levels.join(" or "));
            Finding::error(RULE, &manifest.path, manifest.line_beginning("[workspace.lints"), message)
        })
        .collect()
}

fn check_member(manifest: &File) -> Option<Finding> {
    let table = parse(manifest);
    if lookup(&table, &["lints", "workspace"]).and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let name = lookup(&table, &["package", "name"]).and_then(Value::as_str).unwrap_or_default();
    let (holds, message) = if UNSAFE_CRATES.contains(&name) {
        let message = "a crate that may hold `unsafe` writes the workspace's lints out, with `unsafe_code` denied and \
                       `undocumented_unsafe_blocks` too";
        (writes_lints_out(&table), message)
    } else {
        (false, "the crate must inherit the workspace's lints: `[lints]` with `workspace = true`")
    };
    (!holds).then(|| Finding::error(RULE, &manifest.path, manifest.line_beginning("[lints"), message.to_owned()))
}

/// Whether a manifest sets every lint that the rules rely on, where `unsafe_code` need only be denied.
fn writes_lints_out(table: &Table) -> bool {
    let set = |tool: &str, lint: &str, levels: &[&str]| {
        let level = lookup(table, &["lints", tool, lint]).and_then(Value::as_str);
        level.is_some_and(|level| levels.contains(&level))
    };
    let relied_on = RELIED_ON.iter().filter(|(_, lint, _)| *lint != "unsafe_code");
    relied_on.into_iter().all(|(tool, lint, levels)| set(tool, lint, levels))
        && set("rust", "unsafe_code", &["deny"])
        && set("clippy", "undocumented_unsafe_blocks", &["deny"])
}

fn check_threshold(file: &File) -> Option<Finding> {
    let threshold = parse(file).get(THRESHOLD).and_then(Value::as_integer);
    if threshold == Some(FUNCTION_LINES_MAX) {
        return None;
    }
    let message = format!("`{THRESHOLD} = {FUNCTION_LINES_MAX}` is missing: a function stays under 90 lines");
    Some(Finding::error(RULE, &file.path, file.line_beginning(THRESHOLD), message))
}

/// The file as TOML; that it is TOML is the business of another check.
fn parse(file: &File) -> Table {
    file.text.parse().unwrap_or_default()
}

fn lookup<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, name| value.get(name))
}

const RULE: &str = "lints";
const THRESHOLD: &str = "too-many-lines-threshold";

#[cfg(test)]
mod tests {
    use super::super::graph::Graph;
    use super::super::places;
    use super::*;

    #[test]
    fn unsafe_is_refused_in_code_and_not_in_prose() {
        let tree = Tree::of(&[
            ("crates/link/src/a.rs", "//! unsafe\nfn f() {\n    unsafe { g() }\n}"),
            ("crates/link/src/b.rs", "#![forbid(unsafe_code)]\nconst A: &str = \"unsafe\";"),
            ("crates/kernels/src/lib.rs", "fn f() { unsafe { g() } }"),
        ]);
        assert_eq!(places(&check(&tree)), ["crates/link/src/a.rs:3"]);
    }

    #[test]
    fn a_member_that_does_not_inherit_is_refused() {
        for text in ["[package]\n", "[lints]\nworkspace = false\n", "[lints.rust]\nunsafe_code = \"warn\"\n"] {
            let graph = Graph::of(&[("link", &[])]);
            let tree = Tree { graph, ..Tree::of(&[("crates/link/Cargo.toml", text)]) };
            assert_eq!(check(&tree).len(), 1, "{text}");
        }
        let tree = Tree {
            graph: Graph::of(&[("link", &[])]),
            ..Tree::of(&[("crates/link/Cargo.toml", "lints.workspace = true")])
        };
        assert_eq!(check(&tree), []);
    }

    #[test]
    fn lints_that_the_rules_rely_on_are_set() {
        let manifest: String = RELIED_ON
            .iter()
            .map(|(tool, lint, levels)| format!("workspace.lints.{tool}.{lint} = \"{}\"\n", levels[0]))
            .collect();
        assert_eq!(check(&Tree::of(&[("Cargo.toml", &manifest)])), []);
        let weaker = manifest.replace("unsafe_code = \"forbid\"", "unsafe_code = \"deny\"");
        assert!(check(&Tree::of(&[("Cargo.toml", &weaker)]))[0].message.contains("unsafe_code"));
    }

    #[test]
    fn a_clippy_file_without_the_threshold_is_refused() {
        let tree = Tree::of(&[
            ("clippy.toml", "too-many-lines-threshold = 90"),
            ("crates/node/clippy.toml", "allow-unwrap-in-tests = true"),
            ("crates/store/clippy.toml", "\ntoo-many-lines-threshold = 200"),
        ]);
        assert_eq!(places(&check(&tree)), ["crates/node/clippy.toml:0", "crates/store/clippy.toml:2"]);
    }
}
