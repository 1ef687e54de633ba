//! An eavesdropper on one link: switched on, noticed and named, switched off; the link makes key again.

use std::time::Duration;

use optics::Attack;
use types::id::LinkId;

use super::Stage;
use crate::config::{FibreConfig, write_toml};
use crate::failure::Outcome;
use crate::report::{LinkReport, SiteReport};

/// Lets each attacker do his work until his link names him, then waits for key again.
pub(super) async fn notice(stage: &mut Stage) -> Outcome<(String, ())> {
    let mut noticed = Vec::new();
    for (link, attack) in stage.attacks.clone() {
        let blocks = filed(&stage.observer.reports().await?, &link);
        switch(stage, &link, Some(attack))?;
        stage.progress.set_message(format!("{attack} on {link}"));
        let waiting = |_: &[SiteReport]| format!("link {link} has not noticed {attack}");
        let reports = stage.observer.until(NOTICE_MAX, |reports| alarm(reports, &link).is_some(), waiting).await?;
        let alarm = alarm(&reports, &link).unwrap_or_default();
        let during = filed(&reports, &link);
        switch(stage, &link, None)?;
        stage.progress.set_message(format!("{link} recovers"));
        let waiting = |_: &[SiteReport]| format!("link {link} makes no key after the attack");
        let again = |reports: &[SiteReport]| filed(reports, &link) > during;
        stage.observer.until(RECOVER_MAX, again, waiting).await?;
        noticed.push(format!("{attack} on {link}: {alarm}; {} blocks from before, key again after", during - blocks));
    }
    Ok((noticed.join("; "), ()))
}

/// Writes the attack into `fibre.toml`, which the fibres follow.
fn switch(stage: &Stage, link: &LinkId, attack: Option<Attack>) -> Outcome<()> {
    let mut config = FibreConfig::read(&stage.layout.fibre())?;
    config.network = "network.toml".into();
    if let Some(fibre) = config.link.get_mut(link) {
        fibre.attack = attack;
    }
    write_toml(&stage.layout.fibre(), &config)
}

fn ends<'a>(reports: &'a [SiteReport], link: &'a LinkId) -> impl Iterator<Item = &'a LinkReport> {
    reports.iter().flat_map(|site| &site.links).filter(move |report| report.link == *link)
}

fn alarm(reports: &[SiteReport], link: &LinkId) -> Option<String> {
    ends(reports, link).find_map(|end| end.last_alarm.clone())
}

fn filed(reports: &[SiteReport], link: &LinkId) -> u64 {
    ends(reports, link).map(|end| end.blocks).max().unwrap_or_default()
}

/// A block of a long link takes a while to fill.
const NOTICE_MAX: Duration = Duration::from_secs(60);
const RECOVER_MAX: Duration = Duration::from_secs(90);
