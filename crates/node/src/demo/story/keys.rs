//! A key taken at one site and collected by its id at another, as any SAE would.

use std::time::Instant;

use super::Stage;
use crate::config::SaeConfig;
use crate::failure::{Failure, Outcome};
use crate::provision::app_sae;
use crate::sae;

/// Supplies a key over the longest way of the network and checks that it can be had only once.
pub(super) async fn supply(stage: &mut Stage) -> Outcome<(String, ())> {
    let mut sites = stage.network.sites().keys();
    let (Some(first), Some(last)) = (sites.next(), sites.next_back()) else {
        return Err(Failure::new("a network of one site supplies no keys to others"));
    };
    let (master, slave) = (app_sae(first)?, app_sae(last)?);
    let at = |site, sae| SaeConfig::read(&stage.layout.sae(site, sae).join("sae.toml"));
    let (here, there) = (sae::client(&at(first, &master)?)?, sae::client(&at(last, &slave)?)?);
    let begun = Instant::now();
    let taken = here.encrypt(&slave, KEYS, 256).await?;
    let took_ms = begun.elapsed().as_secs_f64() * 1e3;
    let ids: Vec<_> = taken.iter().map(|key| key.id).collect();
    let begun = Instant::now();
    let collected = there.decrypt_all(&master, &ids).await?;
    let collected_ms = begun.elapsed().as_secs_f64() * 1e3;
    let same = taken.len() == collected.len()
        && taken.iter().all(|key| collected.iter().any(|other| other.id == key.id && other.key == key.key));
    if !same {
        return Err(Failure::new(format!("{first} and {last} hold different bits under the same ids")));
    }
    if there.decrypt_all(&master, &ids).await.is_ok() {
        return Err(Failure::new(format!("{last} delivered a key twice")));
    }
    Ok((
        format!(
            "{KEYS} keys taken at {first} in {took_ms:.0} ms, collected by id at {last} in {collected_ms:.0} ms, \
             equal, refused a second time"
        ),
        (),
    ))
}

const KEYS: u32 = 4;
