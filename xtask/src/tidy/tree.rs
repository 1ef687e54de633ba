//! What the checks look at: the project's files and its dependency graph.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::command::CommandLine;

use super::graph::Graph;
use super::source::Source;

/// Files and graph of the workspace.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: Vec<File>,
    pub(super) graph: Graph,
    /// Every path there is, binary files too: what a link may point to.
    pub(super) paths: BTreeSet<String>,
}

/// One text file.
#[derive(Debug)]
pub(super) struct File {
    /// From the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// Lexed if it is a Rust file, else empty.
    pub(super) source: Source,
    /// The whole file is test, bench or example code.
    pub(super) is_test: bool,
}

impl Tree {
    pub(super) fn load(root: &Path) -> Result<Self, Failure> {
        let mut files = Vec::new();
        let mut paths = BTreeSet::new();
        for path in list_paths(root)? {
            // A file that git still lists may be gone; one that is not text has no lines to check.
            let Ok(bytes) = fs::read(root.join(&path)) else { continue };
            if let Ok(text) = String::from_utf8(bytes) {
                files.push((path.clone(), text));
            }
            paths.insert(path);
        }
        Ok(Self { paths, ..Self::new(files, Graph::load(root)?) })
    }

    pub(super) fn new(files: Vec<(String, String)>, graph: Graph) -> Self {
        let paths = files.iter().map(|(path, _)| path.clone()).collect();
        let mut files: Vec<File> = files.into_iter().map(|(path, text)| File::new(path, text)).collect();
        let test_stems: Vec<String> = files.iter().flat_map(File::stems_of_test_modules).collect();
        for file in &mut files {
            let is_in = |stem: &String| {
                file.path.strip_prefix(stem.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            };
            file.is_test |= test_stems.iter().any(is_in);
        }
        Self { files, graph, paths }
    }

    /// Rust files of the workspace.
    pub(super) fn rust_files(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// For tests of checks: a tree of these files alone.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let owned = files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect();
        Self::new(owned, Graph::default())
    }
}

impl File {
    fn new(path: String, text: String) -> Self {
        let is_rust = path.ends_with(".rs");
        let source = if is_rust { Source::lex(&text) } else { Source::default() };
        let mut folders = path.split('/').rev().skip(1);
        let is_test = path.ends_with("/tests.rs") || folders.any(|folder| TEST_FOLDERS.contains(&folder));
        Self { path, text, source, is_test }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// `crates/<name>/…` gives the name.
    pub(super) fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split_once('/').map(|(name, _)| name)
    }

    /// The code that ships: without comments, literals and tests.
    pub(super) fn shipped(&self) -> &str {
        if self.is_test { "" } else { &self.source.shipped }
    }

    /// Lines of shipped code with `word`.
    pub(super) fn shipped_lines_with(&self, word: &str) -> Vec<usize> {
        if self.is_test { Vec::new() } else { self.source.shipped_lines_with(word) }
    }

    /// The line, from 1, of the first one that begins with `start`; 0 if there is none.
    pub(super) fn line_beginning(&self, start: &str) -> usize {
        self.text.lines().position(|line| line.starts_with(start)).map_or(0, |index| index + 1)
    }

    fn stems_of_test_modules(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let folder = match stem.rsplit_once('/') {
            Some((folder, "lib" | "main" | "mod")) => folder,
            _ => stem,
        };
        self.source.test_modules.iter().map(|name| format!("{folder}/{name}")).collect()
    }
}

/// Paths of tracked files and of new ones that are not ignored; without git, of all but build output.
fn list_paths(root: &Path) -> Result<Vec<String>, Failure> {
    let git = CommandLine::new(
        "git",
        &["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    );
    let mut paths: Vec<String> = match git.read(root) {
        Ok(list) => list.split_terminator('\0').map(str::to_owned).collect(),
        Err(_) => {
            let mut paths = Vec::new();
            walk(root, "", &mut paths)?;
            paths
        }
    };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn walk(root: &Path, folder: &str, paths: &mut Vec<String>) -> Result<(), Failure> {
    let unreadable = |error| Failure(format!("reading the folder {folder:?}: {error}"));
    for entry in fs::read_dir(root.join(folder)).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() && name != ".git" && name != "target" {
            walk(root, &path, paths)?;
        } else if kind.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}

const TEST_FOLDERS: [&str; 4] = ["benches", "examples", "fuzz", "tests"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_only_tests_use_are_known() {
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", "#[cfg(test)]\nmod model;\nmod part;"),
            ("crates/a/src/model.rs", "fn f() {}"),
            ("crates/a/src/model/inner.rs", "fn f() {}"),
            ("crates/a/src/part.rs", "#[cfg(test)]\nmod cases;"),
            ("crates/a/src/part/cases.rs", "fn f() {}"),
            ("crates/a/src/part/tests.rs", "fn f() {}"),
            ("crates/a/tests/it/main.rs", "fn f() {}"),
            ("crates/a/src/models.rs", "fn f() {}"),
        ]);
        let tests: Vec<_> = tree
            .files
            .iter()
            .filter(|file| file.is_test)
            .map(|file| file.path.strip_prefix("crates/a/").unwrap())
            .collect();
        assert_eq!(
            tests,
            ["src/model.rs", "src/model/inner.rs", "src/part/cases.rs", "src/part/tests.rs", "tests/it/main.rs"]
        );
    }

    #[test]
    fn without_git_all_but_build_output_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut paths = Vec::new();
        walk(root, "", &mut paths).unwrap();
        assert!(paths.contains(&"src/tidy/tree.rs".to_owned()) && paths.contains(&"Cargo.toml".to_owned()));
    }
}
