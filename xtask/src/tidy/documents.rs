//! Documents and samples: links resolve, TOML and JSON files parse, no file names a developer's machine.

use super::Finding;
use super::tree::{File, Tree};

/// Top folders of machines on which the project was written; a user's or a server's path is an example under `/etc`,
/// `/var` or `/srv`.
const MACHINE_FOLDERS: [&str; 3] = ["home", "root", "work"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if is_document(&file.path) {
            findings.extend(check_links(tree, file));
        }
        findings.extend(check_syntax(file));
        findings.extend(check_machine(file));
    }
    findings
}

fn is_document(path: &str) -> bool {
    path.ends_with(".md") && (path.starts_with("docs/") || !path.contains('/'))
}

fn check_syntax(file: &File) -> Option<Finding> {
    let message = if file.path.ends_with(".toml") {
        file.text.parse::<toml::Table>().err()?.to_string()
    } else if file.path.ends_with(".json") {
        serde_json::from_str::<serde_json::Value>(&file.text).err()?.to_string()
    } else {
        return None;
    };
    let first = message.lines().next().unwrap_or_default();
    Some(Finding::error(RULE, &file.path, 0, format!("the file does not parse: {first}")))
}

fn check_machine(file: &File) -> Vec<Finding> {
    let outside = format!("../{}", "shared");
    let folders = MACHINE_FOLDERS.map(|folder| format!("/{folder}/"));
    let is_inside_a_path = |before: &str| {
        before
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | ')' | '*'))
    };
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for folder in &folders {
            if line.match_indices(folder.as_str()).any(|(at, _)| !is_inside_a_path(&line[..at])) {
                let message = format!("`{folder}` is a path of a developer's machine");
                findings.push(Finding::error(RULE, &file.path, index + 1, message));
            }
        }
        if line.contains(&outside) {
            let message = format!("`{outside}` is not part of the project");
            findings.push(Finding::error(RULE, &file.path, index + 1, message));
        }
    }
    findings
}

fn check_links(tree: &Tree, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, target) in links(&file.text) {
        let found = |message| Finding::error(RULE, &file.path, line, message);
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) =
            target.split_once('#').map_or((target.as_str(), None), |(path, anchor)| (path, Some(anchor)));
        let Some(path) = (if path.is_empty() { Some(file.path.clone()) } else { resolve(&file.path, path) }) else {
            findings.push(found(format!("the link `{target}` leaves the project")));
            continue;
        };
        let is_folder = || tree.paths.iter().any(|known| known.starts_with(&format!("{path}/")));
        if !tree.paths.contains(&path) && !is_folder() {
            findings.push(found(format!("the link `{target}` leads to no file")));
        } else if let (Some(anchor), Some(linked)) = (anchor, tree.file(&path).filter(|f| f.path.ends_with(".md")))
            && !anchors(&linked.text).iter().any(|known| known == anchor)
        {
            findings.push(found(format!("the link `{target}` leads to no heading")));
        }
    }
    findings
}

/// Targets of inline and reference links with their lines; code is left out.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        // What stands between single backticks is code.
        let line: String =
            line.split('`').enumerate().map(|(part, text)| if part % 2 == 0 { text } else { "code" }).collect();
        let mut targets: Vec<&str> =
            line.split("](").skip(1).filter_map(|after| after.split_once(')').map(|(target, _)| target)).collect();
        targets.extend(
            line.trim_start().strip_prefix('[').and_then(|line| line.split_once("]: ")).map(|(_, target)| target),
        );
        for target in targets {
            let target = target.split_whitespace().next().unwrap_or_default();
            links.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
    }
    links
}

/// The names that a site for the repository gives its headings.
fn anchors(text: &str) -> Vec<String> {
    let heading = |line: &str| {
        let title = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?.to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
    };
    prose(text).filter_map(|(_, line)| heading(line)).collect()
}

/// Lines outside fenced code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_fence = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_fence ^= is_fence;
        (!in_fence && !is_fence).then_some((index + 1, line))
    })
}

/// `path` as seen from the file `from`, from the root. `None` if it leads outside.
fn resolve(from: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

const RULE: &str = "documents";

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    #[test]
    fn links_to_files_and_headings_that_are_not_there_are_refused() {
        let good = "[a](../README.md) [b](formats/x.md#the-head-er) [c](https://example.org/x) [d](#here) [e](formats)\n\
                    # Here\n[f]: formats/x.md\n`[g](no.md)`\n```\n[h](no.md)\n```\n";
        let bad = "# Head\n[a](no.md)\n[b](formats/x.md#no)\n[c](../../x)\n[d]: no.md\n[e](/README.md) ![f](no.svg)\n";
        let tree = Tree::of(&[
            ("README.md", ""),
            ("docs/good.md", good),
            ("docs/bad.md", bad),
            ("docs/formats/x.md", "## The `head-er`!\n"),
            ("crates/a/notes.md", "[x](no.md)"),
        ]);
        let lines = [2, 3, 4, 5, 6, 6].map(|line| format!("docs/bad.md:{line}"));
        assert_eq!(places(&check(&tree)), lines);
    }

    #[test]
    fn samples_parse() {
        let tree = Tree::of(&[
            ("networks/a.toml", "name = \"x\""),
            ("networks/b.toml", "name = x y"),
            ("docs/c.json", "{\"a\": 1,}"),
            ("docs/d.json", "[]"),
        ]);
        assert_eq!(places(&check(&tree)), ["networks/b.toml:0", "docs/c.json:0"]);
    }

    #[test]
    fn paths_of_a_machine_are_refused() {
        for folder in MACHINE_FOLDERS {
            let bad = format!("x\nrun /{folder}/me/x now\n");
            assert_eq!(places(&check(&Tree::of(&[("a.txt", &bad)]))), ["a.txt:2"]);
            let good = format!("https://example.org/{folder}/x and crates/{folder}/x and ${{A}}/{folder}/x");
            assert_eq!(check(&Tree::of(&[("a.txt", &good)])), []);
        }
        let outside = format!("see ../{}/SPEC.md", "shared");
        assert_eq!(places(&check(&Tree::of(&[("a.rs", &format!("//! x\n// {outside}"))]))), ["a.rs:2"]);
    }
}
