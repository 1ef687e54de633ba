//! Fuzz body: a plain function over bytes, replayed by tests over generated inputs.

use super::{AckContainers, ExtKeyContainer, Problem, VersionContainer, VoidContainer};

/// Nothing panics, and what is read is read the same from what is written of it.
pub fn bodies(bytes: &[u8]) {
    if let Ok(container) = ExtKeyContainer::parse(bytes) {
        let again = container.to_json().expose(ExtKeyContainer::parse);
        assert_eq!(again.as_ref(), Ok(&container), "a transfer survives its own JSON");
    }
    if let Ok(acks) = AckContainers::parse(bytes) {
        assert_eq!(AckContainers::parse(&acks.to_json()).as_ref(), Ok(&acks), "acknowledgements survive their JSON");
    }
    if let Ok(void) = VoidContainer::parse(bytes) {
        assert_eq!(VoidContainer::parse(&void.to_json()).as_ref(), Ok(&void), "a void request survives its JSON");
    }
    if let Ok(versions) = VersionContainer::parse(bytes) {
        let again = VersionContainer::parse(&versions.to_json());
        assert_eq!(again.as_ref(), Ok(&versions), "versions survive their JSON");
    }
    if let Some(problem) = Problem::parse(bytes) {
        assert_eq!(Problem::parse(&problem.to_json()).as_ref(), Some(&problem), "a problem survives its JSON");
    }
}
