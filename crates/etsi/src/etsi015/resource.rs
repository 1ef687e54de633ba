//! Paths of data resources (RFC 8040, 3.5.3) and what they select: a container or leaf by its name, an entry of a list
//! by the value of its key.

use serde_json::{Map, Value};

use super::{MODULE, TYPES_MODULE};
use crate::skip::decode_percent;

/// Why a path selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The path is no path of a data resource.
    #[error("{0}")]
    Malformed(String),
    /// There is no such resource now.
    #[error("there is no {0}")]
    Missing(String),
}

/// Selects below the tree by the path behind `/restconf/data/`; gives the body of the answer.
///
/// # Errors
/// If the path is malformed or nothing stands there.
pub fn select(node: &Value, path: &str) -> Result<Value, ResourceError> {
    let malformed = |why: &str| ResourceError::Malformed(why.to_owned());
    if path.len() > PATH_MAX {
        return Err(malformed("the path is too long"));
    }
    let mut segments = path.trim_end_matches('/').split('/');
    let first = segments.next().unwrap_or_default();
    if first != format!("{MODULE}:{ROOT}") {
        return Err(ResourceError::Missing(format!("{first:?} here; the tree is {MODULE}:{ROOT}")));
    }
    let (mut name, mut found, mut entry) = (ROOT.to_owned(), node, false);
    for segment in segments {
        if matches!(found, Value::Array(_)) {
            return Err(malformed("a list entry is named by its key, as in qkd_link=ID"));
        }
        let (raw, key) = segment.split_once('=').map_or((segment, None), |(raw, key)| (raw, Some(key)));
        // A member may carry its module's name although its parent has the same.
        name = raw.strip_prefix(&format!("{MODULE}:")).unwrap_or(raw).to_owned();
        let missing = || ResourceError::Missing(segment.chars().take(SHOWN_MAX).collect());
        found = found.get(&name).ok_or_else(missing)?;
        entry = key.is_some();
        if let Some(key) = key {
            let key = decode_percent(key).ok_or_else(|| malformed("a key is not percent-encoded UTF-8"))?;
            let leaf = key_leaf(&name).ok_or_else(|| malformed("only lists have keys"))?;
            let Value::Array(entries) = found else { return Err(malformed("only lists have keys")) };
            found = entries
                .iter()
                .find(|entry| entry.get(leaf).is_some_and(|value| names(value, &key)))
                .ok_or_else(missing)?;
        }
    }
    // RFC 7951, 5.4: an entry of a list is an array of one.
    let body = if entry { Value::Array(vec![found.clone()]) } else { found.clone() };
    Ok(Value::Object(Map::from_iter([(format!("{MODULE}:{name}"), body)])))
}

/// The leaf that is a list's key.
fn key_leaf(list: &str) -> Option<&'static str> {
    Some(match list {
        "qkd_app" => "app_id",
        "statistics" => "end_time",
        "qkd_interface" => "qkdi_id",
        "qkd_link" => "qkdl_id",
        "phys_perf" => "perf_type",
        _ => return None,
    })
}

fn names(value: &Value, key: &str) -> bool {
    match value {
        Value::String(text) => {
            text == key || text.strip_prefix(TYPES_MODULE).and_then(|rest| rest.strip_prefix(':')) == Some(key)
        }
        Value::Number(number) => number.to_string() == key,
        _ => false,
    }
}

const ROOT: &str = "qkd_node";
const PATH_MAX: usize = 1_024;
const SHOWN_MAX: usize = 80;
