//! Patterns over tensor names: `*` is any run of characters, `?` any one character.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Longest pattern in characters.
    pub const MAX: usize = 200;

    /// A pattern of 1 to [`Glob::MAX`] characters.
    #[must_use]
    pub fn new(pattern: &str) -> Option<Self> {
        (1..=Self::MAX).contains(&pattern.chars().count()).then(|| Self(pattern.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a whole name matches. Time is at most the product of both lengths.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut pattern = self.0.chars();
        let mut name = name.chars();
        // Where to go on after the last `*` took one character more.
        let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
        loop {
            let mut after_name = name.clone();
            let mut after_pattern = pattern.clone();
            match (after_pattern.next(), after_name.next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    retry = Some((after_pattern.clone(), name.clone()));
                    pattern = after_pattern;
                    continue;
                }
                (Some(want), Some(got)) if want == '?' || want == got => {
                    (pattern, name) = (after_pattern, after_name);
                    continue;
                }
                _ => {}
            }
            let Some((star_pattern, star_name)) = &mut retry else { return false };
            if star_name.next().is_none() {
                return false;
            }
            (pattern, name) = (star_pattern.clone(), star_name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "a.b", true),
            ("a", "ab", false),
            ("?b", "ab", true),
            ("*embed*", "model.embed_tokens.weight", true),
            ("*embed*", "model.mlp.weight", false),
            ("*.weight", "a.weight.weight", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("é?", "éü", true),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        assert!(Glob::new("").is_none());
    }

    fn reference(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|at| reference(rest, &name[at..])),
            Some((want, rest)) => {
                name.split_first().is_some_and(|(got, tail)| (*want == '?' || want == got) && reference(rest, tail))
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let (p, n): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(Glob::new(&pattern).unwrap().matches(&name), reference(&p, &n));
        }
    }
}
