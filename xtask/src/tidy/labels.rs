//! No domain label outside the one list in `crypto::domain`; that they differ is a test there.

use super::Finding;
use super::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust_files().filter(|file| file.path != LIST) {
        for literal in file.source.literals.iter().filter(|l| l.is_bytes && l.text.starts_with(PREFIX)) {
            let message = format!("the label b\"{}\" belongs in {LIST}", literal.text);
            findings.push(Finding::error("labels", &file.path, literal.line, message));
        }
    }
    findings
}

const LIST: &str = "crates/crypto/src/domain.rs";
const PREFIX: &str = "qurrent/";

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    #[test]
    fn labels_stand_in_one_file() {
        let text = "//! x\nf(b\"qurrent/a/1\");\nf(br#\"qurrent/b/1\"#);\nf(\"qurrent/0.1\");\n// b\"qurrent/c/1\"\n";
        let tree = Tree::of(&[(LIST, text), ("crates/kms/src/a.rs", text)]);
        assert_eq!(places(&check(&tree)), ["crates/kms/src/a.rs:2", "crates/kms/src/a.rs:3"]);
    }
}
