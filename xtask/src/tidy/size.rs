//! Lines of code per file: the aim is under 500 without tests, the limit 1,000.
//!
//! A line counts if code is left on it when comments are gone. Test files have the limit, not the aim.

use super::Finding;
use super::source::Source;
use super::tree::{File, Tree};

const LINES_AIM: usize = 500;
const LINES_MAX: usize = 1_000;
const INLINE_TEST_LINES_MAX: usize = 200;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust_files().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Option<Finding> {
    let all = lines_of_code(&file.source.code);
    let counted = if file.is_test { all } else { lines_of_code(&file.source.shipped) };
    let inline_tests = all - lines_of_code(&file.source.shipped);
    if counted > LINES_MAX {
        let message = format!("{counted} lines of code; the limit is {LINES_MAX}: split the file by idea");
        return Some(Finding::error(RULE, &file.path, 0, message));
    }
    if counted > LINES_AIM && !file.is_test {
        let message = format!("{counted} lines of code; the aim is under {LINES_AIM}");
        return Some(Finding::warning(RULE, &file.path, 0, message));
    }
    if inline_tests > INLINE_TEST_LINES_MAX && !file.is_test {
        let message =
            format!("{inline_tests} lines of tests; above {INLINE_TEST_LINES_MAX} they move to their own file");
        let line = first_test_line(&file.source);
        return Some(Finding::warning(RULE, &file.path, line, message));
    }
    None
}

fn lines_of_code(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

fn first_test_line(source: &Source) -> usize {
    let mut lines = source.code.lines().zip(source.shipped.lines());
    lines.position(|(code, shipped)| code != shipped).map_or(0, |index| index + 1)
}

const RULE: &str = "size";

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn severity(path: &str, text: &str) -> Option<Severity> {
        check(&Tree::of(&[(path, text)])).first().map(|finding| finding.severity)
    }

    #[test]
    fn the_aim_warns_and_the_limit_fails() {
        let path = "crates/link/src/a.rs";
        assert_eq!(severity(path, &"x();\n".repeat(500)), None);
        assert_eq!(severity(path, &"x();\n".repeat(501)), Some(Severity::Warning));
        assert_eq!(severity(path, &"x();\n".repeat(1_000)), Some(Severity::Warning));
        assert_eq!(severity(path, &"x();\n".repeat(1_001)), Some(Severity::Error));
    }

    #[test]
    fn comments_blank_lines_and_tests_do_not_count() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "x();\n".repeat(150));
        let text = format!("{}{}{tests}", "// x\n\n".repeat(2_000), "x();\n".repeat(500));
        assert_eq!(severity("crates/link/src/a.rs", &text), None);
    }

    #[test]
    fn many_tests_move_to_their_own_file_which_has_the_limit_too() {
        let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "x();\n".repeat(201));
        let findings = check(&Tree::of(&[("crates/link/src/a.rs", &tests)]));
        assert_eq!((findings[0].severity, findings[0].line), (Severity::Warning, 2));
        assert_eq!(severity("crates/link/src/a/tests.rs", &"x();\n".repeat(1_000)), None);
        assert_eq!(severity("crates/link/src/a/tests.rs", &"x();\n".repeat(1_001)), Some(Severity::Error));
    }
}
