//! Cores have no async, thread, socket, file, clock, environment or OS randomness.
//!
//! Two ways to see it: words in the shipped code of a core (comments, literals and tests left out), and packages in
//! what a build of the core alone compiles.

use super::Finding;
use super::graph::Reached;
use super::layers;
use super::source::Source;
use super::tree::{File, Tree};

/// A word that shipped code of a core must not hold.
const WORDS: [(&str, &str); 26] = [
    ("std::net", "a core has no sockets"),
    ("std::fs", "a core touches no files"),
    ("std::thread", "a core has no threads"),
    ("thread::spawn", "a core has no threads"),
    ("thread::sleep", "a core has no threads"),
    ("thread::scope", "a core has no threads"),
    ("std::env", "a core reads no environment"),
    ("env::var", "a core reads no environment"),
    ("std::process", "a core starts no process"),
    ("io::stdin", "a core has no console"),
    ("io::stdout", "a core has no console"),
    ("io::stderr", "a core has no console"),
    ("Instant", CLOCK),
    ("SystemTime", CLOCK),
    ("async", ASYNC),
    (".await", ASYNC),
    ("tokio", ASYNC),
    ("rayon", "a core has no threads"),
    ("getrandom", RANDOMNESS),
    ("OsRng", RANDOMNESS),
    ("SysRng", RANDOMNESS),
    ("ThreadRng", RANDOMNESS),
    ("thread_rng", RANDOMNESS),
    ("from_entropy", RANDOMNESS),
    ("from_os_rng", RANDOMNESS),
    ("SystemRandom", RANDOMNESS),
];

/// First names under `std` that a grouped import must not hold.
const STD_MODULES: [&str; 5] = ["env", "fs", "net", "process", "thread"];

/// Packages that no build of a core compiles.
const PACKAGES: [(&str, &str); 13] = [
    ("async-executor", ASYNC),
    ("async-std", ASYNC),
    ("futures-executor", ASYNC),
    ("mio", ASYNC),
    ("smol", ASYNC),
    ("tokio", ASYNC),
    ("chrono", CLOCK),
    ("jiff", CLOCK),
    ("time", CLOCK),
    ("crossbeam-channel", "a core has no threads"),
    ("rayon", "a core has no threads"),
    ("rustix", "a core makes no system call"),
    ("getrandom", RANDOMNESS),
];

/// Features that give OS randomness, whatever package has them.
const RANDOM_FEATURES: [&str; 5] = ["getrandom", "os_rng", "sys_rng", "thread_rng", "entropy"];

/// The core that goes into a field terminal, and what must stay off in its build.
const NO_STD_CORE: &str = "terminal";
const NO_STD_FEATURES: [(&str, &str); 2] = [("types", "std"), ("crypto", "aws-lc")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for core in layers::cores() {
        for file in tree.rust_files().filter(|file| file.crate_name() == Some(core) && is_source(file)) {
            findings.extend(check_words(file));
        }
        let reached = tree.graph.reach.get(core).map_or(&[][..], Vec::as_slice);
        findings.extend(check_packages(core, reached));
        let own_clippy = format!("crates/{core}/clippy.toml");
        if tree.file(&own_clippy).is_some() {
            let message = "this file hides the root's, which refuses clock, files and threads to cores".to_owned();
            findings.push(Finding::error(RULE, &own_clippy, 0, message));
        }
    }
    findings.extend(check_no_std(tree));
    findings
}

fn is_source(file: &File) -> bool {
    !file.is_test && !file.path.ends_with("/build.rs")
}

fn check_words(file: &File) -> Vec<Finding> {
    let found = |line, word: &str, reason: &str| Finding::error(RULE, &file.path, line, format!("`{word}`: {reason}"));
    let mut findings: Vec<Finding> = WORDS
        .iter()
        .flat_map(|&(word, reason)| {
            file.shipped_lines_with(word).into_iter().map(move |line| found(line, word, reason))
        })
        .collect();
    for (line, module) in grouped_std_imports(&file.source) {
        findings.push(found(line, &format!("std::{{{module}}}"), "a core reaches nothing outside it"));
    }
    findings.sort_by_key(|finding| finding.line);
    findings
}

/// Modules of `STD_MODULES` named at the first level of `std::{…}`.
fn grouped_std_imports(source: &Source) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (at, opening) in source.shipped.match_indices("std::{") {
        let mut depth = 0_u32;
        let mut at_start = true;
        for (offset, c) in source.shipped[at + opening.len()..].char_indices() {
            let rest = &source.shipped[at + opening.len() + offset..];
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                _ => {}
            }
            if at_start && c.is_alphabetic() {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let line = source.shipped[..at + opening.len() + offset].matches('\n').count() + 1;
                found.extend(STD_MODULES.iter().find(|module| **module == name).map(|module| (line, *module)));
            }
            at_start = depth == 0 && (c == ',' || (at_start && c.is_whitespace()));
        }
    }
    found
}

fn check_packages(core: &str, reached: &[Reached]) -> Vec<Finding> {
    let manifest = format!("crates/{core}/Cargo.toml");
    let found = |message| Finding::error(RULE, &manifest, 0, message);
    let mut findings = Vec::new();
    for package in reached {
        if let Some((name, reason)) = PACKAGES.iter().find(|(name, _)| *name == package.name) {
            findings.push(found(format!("`{core}` reaches the package `{name}`: {reason}")));
        }
        for feature in RANDOM_FEATURES.iter().filter(|feature| package.features.iter().any(|f| f == *feature)) {
            let name = &package.name;
            findings.push(found(format!("`{core}` builds `{name}` with the feature `{feature}`: {RANDOMNESS}")));
        }
        for (name, feature) in NO_STD_FEATURES {
            let is_on = package.name == name && package.features.iter().any(|f| f == feature);
            if core == NO_STD_CORE && is_on {
                findings.push(found(format!("`{core}` builds `{name}` with the feature `{feature}`: it is `no_std`")));
            }
        }
    }
    findings
}

fn check_no_std(tree: &Tree) -> Option<Finding> {
    let path = format!("crates/{NO_STD_CORE}/src/lib.rs");
    let file = tree.file(&path)?;
    if file.shipped().lines().any(|line| line.trim() == "#![no_std]") {
        return None;
    }
    let message = "`#![no_std]` is missing: this core goes into field terminals".to_owned();
    Some(Finding::error(RULE, &path, 0, message))
}

const RULE: &str = "cores";
const CLOCK: &str = "a core is handed its time (`types::units::Time`)";
const ASYNC: &str = "a core has no async runtime; the shell drives it";
const RANDOMNESS: &str = "a core is handed its randomness (`&mut impl rand_core::CryptoRng`)";

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    #[test]
    fn each_word_is_refused_in_a_core() {
        for (word, _) in WORDS {
            let text = format!("//! A core.\nfn f() {{ x({word}) }}\n");
            let findings = check(&Tree::of(&[("crates/link/src/a.rs", &text)]));
            assert!(places(&findings).contains(&"crates/link/src/a.rs:2".to_owned()), "{word}");
        }
    }

    #[test]
    fn prose_tests_and_other_crates_may_say_it() {
        let tree = Tree::of(&[
            (
                "crates/link/src/a.rs",
                "//! std::fs\nconst A: &str = \"std::fs\";\n#[cfg(test)]\nmod tests { use std::fs; }",
            ),
            ("crates/link/src/a/tests.rs", "use std::fs;"),
            ("crates/link/tests/it/main.rs", "use std::fs;"),
            ("crates/node/src/a.rs", "use std::{fs, net::TcpStream};"),
            ("crates/kms/src/a.rs", "use std::{collections::{fs}, fmt};\nstruct Instantly;\nfn asynchronous() {}"),
        ]);
        assert_eq!(check(&tree), []);
    }

    #[test]
    fn grouped_imports_are_seen() {
        let tree = Tree::of(&[("crates/sim/src/a.rs", "use std::{\n    fmt,\n    fs::File, net::{TcpStream}};\n")]);
        assert_eq!(places(&check(&tree)), ["crates/sim/src/a.rs:3", "crates/sim/src/a.rs:3"]);
    }

    #[test]
    fn packages_and_features_are_seen() {
        let reached = |name: &str, features: &[&str]| Reached {
            name: name.to_owned(),
            features: features.iter().map(|&f| f.to_owned()).collect(),
        };
        assert_eq!(check_packages("kms", &[reached("tokio", &[])]).len(), 1);
        assert_eq!(check_packages("kms", &[reached("getrandom", &[])]).len(), 1);
        assert_eq!(check_packages("kms", &[reached("rand", &["thread_rng"])]).len(), 1);
        assert_eq!(check_packages("kms", &[reached("types", &["std"])]).len(), 0);
        assert_eq!(check_packages("terminal", &[reached("types", &["std"])]).len(), 1);
        assert_eq!(check_packages("terminal", &[reached("crypto", &["aws-lc"])]).len(), 1);
    }

    #[test]
    fn a_core_has_no_clippy_file_of_its_own() {
        let tree = Tree::of(&[("crates/optics/clippy.toml", ""), ("crates/node/clippy.toml", "")]);
        assert_eq!(places(&check(&tree)), ["crates/optics/clippy.toml:0"]);
    }

    #[test]
    fn the_terminal_is_no_std_without_condition() {
        for text in ["//! x\n", "#![cfg_attr(not(test), no_std)]\n", "// #![no_std]\n"] {
            assert_eq!(check(&Tree::of(&[("crates/terminal/src/lib.rs", text)])).len(), 1, "{text}");
        }
        assert_eq!(check(&Tree::of(&[("crates/terminal/src/lib.rs", "#![no_std]\n")])), []);
    }
}
