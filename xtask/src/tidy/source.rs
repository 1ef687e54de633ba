//! Rust source cut into code, literals and comments, so that a check for a word does not trip over prose.
//!
//! Not a parser: it knows comments, literals, attributes and balanced brackets, which is enough to blank what must
//! not be searched and to find the items under `#[cfg(test)]`. Blanking keeps every line where it was.

/// One Rust file, lexed.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    /// The text with comments and the contents of literals blanked.
    pub(super) code: String,
    /// `code` with the items under `#[cfg(test)]` blanked too.
    pub(super) shipped: String,
    pub(super) literals: Vec<Literal>,
    pub(super) comments: Vec<Comment>,
    /// Names of modules that `#[cfg(test)] mod name;` keeps in other files.
    pub(super) test_modules: Vec<String>,
}

/// The contents of a string literal, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) line: usize,
    /// `b"…"` or `br"…"`.
    pub(super) is_bytes: bool,
    pub(super) text: String,
}

/// One line of a comment, with its markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Comment {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Source {
    pub(super) fn lex(text: &str) -> Self {
        let mut lexer = Lexer { chars: text.chars().collect(), position: 0, line: 1, source: Self::default() };
        lexer.run();
        let mut source = lexer.source;
        source.blank_tests();
        source
    }

    /// The lines, from 1, on which `word` stands in `shipped` as a whole word (`::` may be part of it).
    pub(super) fn shipped_lines_with(&self, word: &str) -> Vec<usize> {
        lines_with(&self.shipped, word)
    }

    /// The lines, from 1, on which `word` stands in `code` as a whole word.
    pub(super) fn lines_with(&self, word: &str) -> Vec<usize> {
        lines_with(&self.code, word)
    }

    fn blank_tests(&mut self) {
        let mut code: Vec<char> = self.code.chars().collect();
        let mut from = 0;
        while let Some(start) = ["#[cfg(", "#![cfg("].iter().filter_map(|start| find(&code, from, start)).min() {
            let is_inner = code[start + 1] == '!';
            let open = start + 1 + usize::from(is_inner);
            let after = skip_balanced(&code, open);
            let condition: String = code[open..after].iter().filter(|c| !c.is_whitespace()).collect();
            if !(condition == "[cfg(test)]" || condition.starts_with("[cfg(all(test,")) {
                from = after;
                continue;
            }
            let end = if is_inner { code.len() } else { end_of_item(&code, after) };
            let item: String = code[after..end].iter().collect();
            if let Some(name) = item.trim().strip_suffix(';').and_then(|item| item.rsplit_once("mod ")) {
                self.test_modules.push(name.1.trim().to_owned());
            }
            code[start..end].iter_mut().filter(|c| **c != '\n').for_each(|c| *c = ' ');
            from = end;
        }
        self.shipped = code.into_iter().collect();
    }
}

struct Lexer {
    chars: Vec<char>,
    position: usize,
    line: usize,
    source: Source,
}

impl Lexer {
    fn run(&mut self) {
        while let Some(c) = self.peek(0) {
            match c {
                '/' if self.peek(1) == Some('/') => self.line_comment(),
                '/' if self.peek(1) == Some('*') => self.block_comment(),
                '"' => self.string(false),
                '\'' => self.char_or_lifetime(),
                _ if c.is_alphabetic() || c == '_' => self.word(),
                _ => self.keep(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.position + ahead).copied()
    }

    /// Takes one character into the code.
    fn keep(&mut self) {
        let c = self.advance();
        self.source.code.extend(c);
    }

    /// Takes one character and leaves a blank, or the line's end, in the code.
    fn blank(&mut self) -> Option<char> {
        let c = self.advance()?;
        self.source.code.push(if c == '\n' { '\n' } else { ' ' });
        Some(c)
    }

    fn advance(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.position += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn line_comment(&mut self) {
        let line = self.line;
        let mut text = String::new();
        while self.peek(0).is_some_and(|c| c != '\n') {
            text.extend(self.blank());
        }
        self.source.comments.push(Comment { line, text });
    }

    fn block_comment(&mut self) {
        let line = self.line;
        let mut text = String::new();
        let mut depth = 0_u32;
        while let Some(c) = self.peek(0) {
            let pair = (c, self.peek(1));
            match pair {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                _ => {}
            }
            text.extend(self.blank());
            if matches!(pair, ('/', Some('*')) | ('*', Some('/'))) {
                text.extend(self.blank());
            }
            if depth == 0 {
                break;
            }
        }
        for (offset, text) in text.lines().enumerate() {
            self.source.comments.push(Comment { line: line + offset, text: text.to_owned() });
        }
    }

    /// A word, which may turn out to be the prefix of a literal.
    fn word(&mut self) {
        let start = self.position;
        while self.peek(0).is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.keep();
        }
        let word: String = self.chars[start..self.position].iter().collect();
        let is_bytes = word.starts_with('b');
        match (word.as_str(), self.peek(0)) {
            ("b" | "c", Some('"')) => self.string(is_bytes),
            ("b", Some('\'')) => self.char_or_lifetime(),
            ("r" | "br" | "cr", Some('"' | '#')) => self.raw_string(is_bytes),
            _ => {}
        }
    }

    fn string(&mut self, is_bytes: bool) {
        let line = self.line;
        self.keep();
        let mut text = String::new();
        while let Some(c) = self.peek(0).filter(|&c| c != '"') {
            text.extend(self.blank());
            if c == '\\' {
                text.extend(self.blank());
            }
        }
        self.keep();
        self.source.literals.push(Literal { line, is_bytes, text });
    }

    fn raw_string(&mut self, is_bytes: bool) {
        let line = self.line;
        let hashes = self.chars[self.position..].iter().take_while(|&&c| c == '#').count();
        if self.peek(hashes) != Some('"') {
            return; // a raw identifier
        }
        (0..=hashes).for_each(|_| self.keep());
        let mut text = String::new();
        while let Some(c) = self.peek(0) {
            if c == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                break;
            }
            text.extend(self.blank());
        }
        (0..=hashes).for_each(|_| self.keep());
        self.source.literals.push(Literal { line, is_bytes, text });
    }

    fn char_or_lifetime(&mut self) {
        self.keep();
        if self.peek(0) == Some('\\') {
            self.blank();
            self.blank();
            while self.peek(0).is_some_and(|c| c != '\'' && c != '\n') {
                self.blank();
            }
            self.keep();
        } else if self.peek(1) == Some('\'') {
            self.blank();
            self.keep();
        }
    }
}

/// Where the item after an attribute that ends at `from` ends.
fn end_of_item(code: &[char], mut from: usize) -> usize {
    loop {
        from += code[from..].iter().take_while(|c| c.is_whitespace()).count();
        if code.get(from) != Some(&'#') {
            break;
        }
        from = skip_balanced(code, from + 1);
    }
    let word: String = code[from..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
    // A field, a variant or a statement may end at a comma; an item's generics hold commas that end nothing.
    let is_item = ITEM_WORDS.contains(&word.as_str());
    while let Some(&c) = code.get(from) {
        match c {
            ';' => return from + 1,
            ',' if !is_item => return from + 1,
            '{' => return skip_balanced(code, from),
            '(' | '[' => from = skip_balanced(code, from),
            '}' | ')' | ']' => return from,
            _ => from += 1,
        }
    }
    from
}

/// The position behind the bracket that closes the one at `open`.
fn skip_balanced(code: &[char], open: usize) -> usize {
    let mut depth = 0_u32;
    for (offset, c) in code[open.min(code.len())..].iter().enumerate() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

fn find(code: &[char], from: usize, wanted: &str) -> Option<usize> {
    let wanted: Vec<char> = wanted.chars().collect();
    code.get(from..)?.windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
}

fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let holds = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back().is_some_and(is_word);
            let after = line[at + word.len()..].chars().next().is_some_and(is_word);
            let (begins, ends) = (word.starts_with(is_word), word.ends_with(is_word));
            !(before && begins || after && ends)
        })
    };
    code.lines().enumerate().filter(|(_, line)| holds(line)).map(|(index, _)| index + 1).collect()
}

const ITEM_WORDS: [&str; 15] = [
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "unsafe",
    "use",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "let a = \"tokio \\\" x\"; // tokio\n/* tokio /* tokio */ tokio */ let b = r#\"tokio\"#;\nlet c = b\"tokio\";";
        let source = Source::lex(text);
        assert_eq!(source.lines_with("tokio"), Vec::<usize>::new());
        assert_eq!(source.code.lines().count(), 3);
        assert!(source.code.contains("let b = r#\"     \"#;"), "{}", source.code);
        let literals: Vec<_> = source.literals.iter().map(|l| (l.line, l.is_bytes, l.text.as_str())).collect();
        assert_eq!(literals, [(1, false, "tokio \\\" x"), (2, false, "tokio"), (3, true, "tokio")]);
        assert_eq!(source.comments.len(), 2);
    }

    #[test]
    fn quotes_in_characters_and_lifetimes_open_no_string() {
        let source = Source::lex("fn f<'a>(x: &'a str) { ('\"', '\\'', b'\"', '\\u{22}', x); tokio() } // '\"'");
        assert_eq!(source.lines_with("tokio"), [1]);
        assert!(source.literals.is_empty());
    }

    #[test]
    fn raw_identifiers_open_no_string() {
        let source = Source::lex("let r#type = 1; tokio(\"\")");
        assert_eq!(source.lines_with("tokio"), [1]);
    }

    #[test]
    fn items_under_cfg_test_are_not_shipped() {
        for text in [
            "#[cfg(test)]\nmod tests { fn f() { tokio() } }\nfn g() {}",
            "#[cfg(test)]\n#[allow(x)]\npub(crate) fn f<A, B>(a: [A; 2]) -> B { tokio() }\nfn g() {}",
            "#[cfg(all(test, unix))]\nuse tokio::{a, b};\nfn g() {}",
            "struct S { #[cfg(test)] tokio: u8, g: u8 }",
        ] {
            let source = Source::lex(text);
            assert!(source.shipped_lines_with("tokio").is_empty(), "{}", source.shipped);
            assert_eq!(source.shipped_lines_with("g").len(), 1, "{}", source.shipped);
            assert_eq!(source.lines_with("tokio").len(), 1);
        }
    }

    #[test]
    fn what_is_not_only_for_tests_is_shipped() {
        for text in ["#[cfg(not(test))]\nfn f() { tokio() }", "#![cfg_attr(test, allow(x))]\nfn f() { tokio() }"] {
            assert_eq!(Source::lex(text).shipped_lines_with("tokio"), [2]);
        }
    }

    #[test]
    fn a_whole_file_can_be_a_test() {
        assert_eq!(Source::lex("//! x\n#![cfg(test)]\nfn f() { tokio() }").shipped.trim(), "");
    }

    #[test]
    fn test_modules_in_other_files_are_named() {
        let source = Source::lex("#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod model;\nmod real;");
        assert_eq!(source.test_modules, ["tests", "model"]);
    }

    #[test]
    fn words_are_whole() {
        let source = Source::lex("tokio_x();\nxtokio();\nuse tokio::y;\nstd::fs::read();\nmystd::fs::z();");
        assert_eq!(source.lines_with("tokio"), [3]);
        assert_eq!(source.lines_with("std::fs"), [4]);
    }
}
