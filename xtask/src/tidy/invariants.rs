//! ARCHITECTURE.md's invariants name the tests and checks that hold them, and those exist.
//!
//! An invariant is a paragraph that begins with [`MARKER`]. After [`HELD`] it names tests as
//! `` `crate::…::test_function` `` and checks of this folder as `` `tidy::module` ``.

use super::Finding;
use super::tree::{File, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(document) = tree.file(DOCUMENT) else { return Vec::new() };
    let mut findings = Vec::new();
    for (line, paragraph) in invariants(document) {
        let Some((_, holders)) = paragraph.split_once(HELD) else {
            let message = format!("no test or check holds this invariant yet; when one does, say `{HELD} …`");
            findings.push(Finding::warning(RULE, DOCUMENT, line, message));
            continue;
        };
        for name in holders.split('`').skip(1).step_by(2).filter(|name| !exists(tree, name)) {
            let message = format!("`{name}` holds an invariant and does not exist");
            findings.push(Finding::error(RULE, DOCUMENT, line, message));
        }
    }
    findings
}

/// The paragraphs with their first lines' numbers.
fn invariants(document: &File) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (index, line) in document.text.lines().enumerate() {
        if line.starts_with(MARKER) {
            found.push((index + 1, String::new()));
            is_open = true;
        }
        is_open &= !line.trim().is_empty();
        if let Some((_, paragraph)) = found.last_mut().filter(|_| is_open) {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    found
}

fn exists(tree: &Tree, name: &str) -> bool {
    let Some((owner, rest)) = name.split_once("::") else { return false };
    if owner == "tidy" {
        return tree.file(&format!("xtask/src/tidy/{rest}.rs")).is_some();
    }
    let function = format!("fn {}", rest.rsplit("::").next().unwrap_or(rest));
    tree.rust_files().any(|file| file.crate_name() == Some(owner) && !file.source.lines_with(&function).is_empty())
}

const RULE: &str = "invariants";
const DOCUMENT: &str = "ARCHITECTURE.md";
const MARKER: &str = "**Architecture Invariant:**";
const HELD: &str = "Held by";

#[cfg(test)]
mod tests {
    use super::super::{Severity, places};
    use super::*;

    #[test]
    fn holders_exist_and_an_invariant_without_one_warns() {
        let text = "# A\n\n**Architecture Invariant:** One.\nHeld by `kms::pool::tests::once` and `tidy::layers`.\n\n\
                    Held by `kms::nothing`, but no invariant.\n\n**Architecture Invariant:** Two.\n\n\
                    **Architecture Invariant:** Three. Held by `kms::pool::tests::gone`, `tidy::gone`, `once`.\n";
        let tree = Tree::of(&[
            (DOCUMENT, text),
            ("crates/kms/src/pool/tests.rs", "#[test]\nfn once() {}\n// fn gone()"),
            ("crates/store/src/a.rs", "fn gone() {}"),
            ("xtask/src/tidy/layers.rs", ""),
        ]);
        let findings = check(&tree);
        assert_eq!(places(&findings), [8, 10, 10, 10].map(|line| format!("ARCHITECTURE.md:{line}")));
        assert_eq!(findings[0].severity, Severity::Warning);
        assert!(findings[1..].iter().all(|finding| finding.severity == Severity::Error));
    }
}
