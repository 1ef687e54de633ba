//! A strict reader of OpenMetrics 1.0 text, for tests: the grammar, and the rules between a family and its samples.

use std::collections::{BTreeMap, BTreeSet};

/// The families of a text, with their type's suffix of `_total` for counters. Panics at the first thing that is wrong.
pub(super) fn families(text: &str) -> BTreeSet<String> {
    let body = text.strip_suffix("# EOF\n").expect("the text ends with # EOF");
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut series = BTreeSet::new();
    let mut filled = BTreeSet::new();
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (kind, name, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(is_name(name), "{line}");
            if order.last().is_none_or(|last| last != name) {
                assert!(!order.iter().any(|seen| seen == name), "family {name} stands twice");
                order.push(name.to_owned());
            }
            match kind {
                "TYPE" => {
                    assert!(["counter", "gauge", "histogram"].contains(&value), "{line}");
                    assert!(families.insert(name.to_owned(), value.to_owned()).is_none(), "{line}");
                }
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                "HELP" => assert!(!value.is_empty() && value.ends_with('.'), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let (labels, value) = labels(rest).unwrap_or_else(|| panic!("{line}"));
        let family = order.last().expect("a sample follows its family");
        let suffixes: &[&str] = match families[family].as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            _ => &["_bucket", "_count", "_sum"],
        };
        let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} under {family}"));
        assert!(suffixes.contains(&suffix), "{line} under {family}");
        let number: f64 = value.parse().unwrap();
        assert!(number >= 0.0, "{line}");
        assert!(series.insert((name.to_owned(), labels.clone())), "twice: {line}");
        let names: BTreeSet<_> = labels.iter().map(|(name, _)| name).collect();
        assert!(names.len() == labels.len() && names.iter().all(|name| is_name(name)), "{line}");
        assert_eq!(suffix == "_bucket", labels.iter().any(|(name, _)| name == "le"), "{line}");
        filled.insert(family.clone());
    }
    assert_eq!(filled.len(), families.len(), "every family has a sample: {families:?}");
    let shown = |(name, kind): (String, String)| if kind == "counter" { format!("{name}_total") } else { name };
    families.into_iter().map(shown).collect()
}

/// `{a="b",c="d"} 1` as labels and value.
fn labels(rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let Some(mut rest) = rest.strip_prefix('{') else { return Some((Vec::new(), rest.strip_prefix(' ')?)) };
    let mut labels = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(chars.next().filter(|(_, escaped)| "\\\"n".contains(*escaped))?.1),
                (_, plain) => value.push(plain),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Some((labels, rest.strip_prefix("} ")?)),
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
