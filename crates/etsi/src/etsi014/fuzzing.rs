//! Fuzz bodies: plain functions over bytes, replayed by tests over generated inputs.

use types::id::SaeId;

use super::{ErrorBody, KeyIds, KeyRequest, Resource, read_container, write_container};

/// Whatever is read says the same when it is written and read again; nothing panics.
pub fn messages(bytes: &[u8]) {
    let slave = SaeId::new("slave").expect("a plain word is an SAE id");
    if let Ok(request) = KeyRequest::read(&slave, bytes) {
        assert_eq!(KeyRequest::read(&slave, &request.write(&[], &[])), Ok(request), "a request that was read");
    }
    if let Ok(ids) = KeyIds::read(bytes) {
        assert_eq!(KeyIds::read(&ids.write()), Ok(ids), "ids that were read");
    }
    if let Ok(keys) = read_container(bytes) {
        assert_eq!(read_container(&write_container(&keys)), Ok(keys), "keys that were read");
    }
    if let Some(error) = ErrorBody::read(bytes) {
        assert_eq!(ErrorBody::read(&error.write()), Some(error), "an error that was read");
    }
}

/// Paths and queries of any form are refused or read; an id that was read is written and read the same.
pub fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    if let Some(resource) = Resource::parse(path)
        && let Ok(sae) = resource.sae()
    {
        let again = Resource::parse(&Resource::path(resource.call, &sae)).map(|again| again.sae());
        assert_eq!(again, Some(Ok(sae)), "a path that was read");
    }
    drop(KeyRequest::read_query(query));
    drop(KeyIds::read_query(query));
}
