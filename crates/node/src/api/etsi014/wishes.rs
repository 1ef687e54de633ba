//! From the extensions of a request to what the core is asked for.

use std::time::Duration;

use etsi::etsi014::{Class, Extension, Route, Wishes as Asked};
use kms::{PassedOn, Priority, RouteWish, Wishes};

/// The optional extensions of other makers that another network may heed: those that are named as ETSI GS QKD 020 has
/// it, each once, while there is room.
pub(super) fn passed_on(others: &[Extension]) -> Option<PassedOn> {
    let mut object = serde_json::Map::new();
    let mut passed_on = None;
    for Extension { name, value } in others {
        if object.contains_key(name) {
            continue;
        }
        object.insert(name.clone(), value.clone());
        match PassedOn::new(&serde_json::Value::from(object.clone()).to_string()) {
            Some(longer) => passed_on = Some(longer),
            None => _ = object.remove(name),
        }
    }
    passed_on
}

/// What must be met, with the optional wishes that no key can fail: how long to wait, and the class.
pub(super) fn needed(mandatory: &Asked, optional: &Asked) -> Wishes {
    let soft = Asked { wait_ms: optional.wait_ms, priority: optional.priority, ..Asked::default() };
    wishes(&over(mandatory, &soft))
}

/// All wishes together, not waiting; `None` if there is no optional one that a key could fail.
pub(super) fn with_optional(mandatory: &Asked, optional: &Asked) -> Option<Wishes> {
    let soft = Asked { wait_ms: None, priority: None, ..optional.clone() };
    let all = over(mandatory, optional);
    (soft != Asked::default()).then(|| Wishes { wait: Some(Duration::ZERO), ..wishes(&all) })
}

/// The mandatory wishes, and each optional one of which nothing mandatory speaks.
fn over(mandatory: &Asked, optional: &Asked) -> Asked {
    Asked {
        max_age_ms: mandatory.max_age_ms.or(optional.max_age_ms),
        route: mandatory.route.or(optional.route),
        min_hops: mandatory.min_hops.or(optional.min_hops),
        max_hops: mandatory.max_hops.or(optional.max_hops),
        paths: mandatory.paths.or(optional.paths),
        wait_ms: mandatory.wait_ms.or(optional.wait_ms),
        priority: mandatory.priority.or(optional.priority),
    }
}

fn wishes(asked: &Asked) -> Wishes {
    Wishes {
        max_age: asked.max_age_ms.map(Duration::from_millis),
        route: match asked.route.unwrap_or_default() {
            Route::Direct => RouteWish::Direct,
            Route::Indirect => RouteWish::Indirect,
            Route::Any => RouteWish::Any,
        },
        min_hops: asked.min_hops,
        max_hops: asked.max_hops,
        paths: asked.paths.unwrap_or(1),
        wait: asked.wait_ms.map(Duration::from_millis),
        passed_on: None,
        priority: asked.priority.map(|class| match class {
            Class::Telecontrol => Priority::Telecontrol,
            Class::Telemetry => Priority::Telemetry,
            Class::Model => Priority::Model,
            Class::Other => Priority::Other,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_network_can_read_is_passed_on() {
        let other = |name: &str, length| Extension::new(name, "x".repeat(length));
        assert_eq!(passed_on(&[]), None);
        assert_eq!(passed_on(&[other("abc_x", 1)]), None);
        let list = [
            other("E32473_a", 1),
            other("abc", 1),
            other("E32473_a", 2),
            other("E32473_big", 5_000),
            other("E32473_b", 2),
        ];
        let text = passed_on(&list).unwrap().as_json().to_owned();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, serde_json::json!({ "E32473_a": "x", "E32473_b": "xx" }));
    }

    #[test]
    fn what_is_mandatory_wins_and_what_cannot_fail_is_kept() {
        let mandatory = Asked { route: Some(Route::Direct), ..Asked::default() };
        let optional = Asked {
            route: Some(Route::Indirect),
            max_age_ms: Some(5),
            wait_ms: Some(7),
            priority: Some(Class::Model),
            ..Asked::default()
        };
        let first = with_optional(&mandatory, &optional).unwrap();
        assert_eq!((first.route, first.max_age), (RouteWish::Direct, Some(Duration::from_millis(5))));
        assert_eq!((first.wait, first.priority), (Some(Duration::ZERO), Some(Priority::Model)));
        let second = needed(&mandatory, &optional);
        assert_eq!((second.route, second.max_age), (RouteWish::Direct, None));
        assert_eq!((second.wait, second.priority), (Some(Duration::from_millis(7)), Some(Priority::Model)));
        let soft = Asked { wait_ms: Some(7), ..Asked::default() };
        assert_eq!(with_optional(&mandatory, &soft), None);
    }
}
