//! Key relay: what a relayed key costs all sites of its way, how fairly scarce key is shared, how soon another way is
//! taken when a relay is gone.
//!
//! Speed and fail-over are measured at real site processes whose stores were filled with link key before they started;
//! fairness at the real cores in virtual time, where one seed gives one figure on every machine.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use sim::fairness::{Setup, Shape, fairness};
use tokio::time::sleep;
use types::id::SiteId;
use types::units::BitsPerSecond;

use super::ground::Ground;
use super::load::{Call, Load, cpu_seconds};
use super::site;
use crate::bench::{Better, Effort, Row, median};
use crate::failure::{Context as _, Failure, Outcome};

/// All rows of relay.
///
/// # Errors
/// If a site cannot be started or does what it must not.
pub(super) async fn relay(effort: Effort) -> Outcome<Vec<Row>> {
    let mut rows = vec![speed(effort).await?];
    rows.extend(tokio::task::block_in_place(|| shares(effort)));
    rows.push(fail_over(effort).await?);
    Ok(rows)
}

/// Keys carried from one end of a row of four sites to the other, both ways at once. The stocks of all other pairs are
/// full before the sites start, so that nothing else is relayed.
async fn speed(effort: Effort) -> Outcome<Row> {
    let wanted = effort.of(100_000, 5_000) as u64;
    let mut ground = Ground::line(&["a", "b", "c", "d"], u32::try_from(wanted).unwrap_or(u32::MAX))?;
    // As long as the way to the other end, whatever the tags take, and both ends' first waits.
    let left = usize::try_from(wanted).unwrap_or(usize::MAX).saturating_mul(40).max(1 << 20);
    ground.fill(2, left)?;
    ground.start_alone()?;
    let samples = watched(&ground, wanted).await?;
    let pieces = pieces(&samples, effort.of(5, 1));
    let rate = median(pieces.clone());
    equal_at_both_ends(&ground).await?;
    let seconds = samples.last().map_or(0.0, |last| last.at.as_secs_f64()) - samples[0].at.as_secs_f64();
    let how = format!(
        "256-bit keys from one end of four sites in a row to the other, both ways at once, processor time of all four \
         processes, real sockets, durable stores filled with link key, median of {} parts of {} keys in {seconds:.1} s; \
         keys taken at one end equal those at the other",
        pieces.len(),
        2 * wanted
    );
    let name = "relay.keys_per_cpu_s";
    if !rate.is_finite() {
        return Ok(Row::missing(name, "keys/CPU s", Better::Higher, 2_000.0, "no key arrived in time"));
    }
    Ok(Row::at_least(name, rate, "keys/CPU s", 2_000.0, how))
}

/// Keys that had arrived at some time, and what all sites had spent until then.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    keys: u64,
    cpu_s: f64,
}

/// Looks at the stocks of the outer sites for each other until they are nearly full.
async fn watched(ground: &Ground, wanted: u64) -> Outcome<Vec<Sample>> {
    let (a, d) = (site("a")?, site("d")?);
    let loads = (ground.load(&a, 1)?, ground.load(&d, 1)?);
    let (mut at_a, mut at_d) = (reached(&loads.0).await?, reached(&loads.1).await?);
    let pids = ground.pids(&["a", "b", "c", "d"]);
    let (begun, mut samples) = (Instant::now(), Vec::new());
    loop {
        let keys = at_a.stock("app-d").await? + at_d.stock("app-a").await?;
        samples.push(Sample { at: begun.elapsed(), keys, cpu_s: cpu_seconds(&pids)? });
        if keys >= 2 * wanted - wanted / 20 || begun.elapsed() > LONGEST {
            return Ok(samples);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Keys per processor second in parts of the run with as many keys each; the first keys, during which the sites still
/// start, are left out if there is enough without them.
fn pieces(samples: &[Sample], parts: usize) -> Vec<f64> {
    let most = samples.iter().map(|sample| sample.keys).max().unwrap_or_default();
    let steady: Vec<&Sample> = samples.iter().filter(|sample| sample.keys >= most / 20).collect();
    let steady = if steady.len() > parts { steady } else { samples.iter().collect() };
    let Some(first) = steady.first() else { return Vec::new() };
    let reaches = |keys: u64| steady.iter().find(|sample| sample.keys >= keys).copied();
    let bounds = (0..=parts).filter_map(|part| reaches(first.keys + (most - first.keys) * part as u64 / parts as u64));
    let bounds: Vec<&Sample> = bounds.collect();
    let rate = |pair: &[&Sample]| (pair[1].keys - pair[0].keys) as f64 / (pair[1].cpu_s - pair[0].cpu_s);
    bounds.windows(2).map(rate).filter(|rate| rate.is_finite() && *rate > 0.0).collect()
}

/// Takes keys at one end and fetches each at the other.
async fn equal_at_both_ends(ground: &Ground) -> Outcome<()> {
    let (near, far) = (ground.load(&site("a")?, 1)?, ground.load(&site("d")?, 1)?);
    let (mut near, mut far) = (near.call().await?, far.call().await?);
    for _ in 0..COMPARED {
        let taken = keys(&near.get("/api/v1/keys/app-d/enc_keys").await?)?;
        let id = taken.first().map(|key| key.id.clone()).unwrap_or_default();
        let fetched = keys(&far.get(&format!("/api/v1/keys/app-a/dec_keys?key_ID={id}")).await?)?;
        if taken != fetched {
            return Err(Failure::new("a relayed key is not the same at both ends"));
        }
    }
    Ok(())
}

fn keys(body: &[u8]) -> Outcome<Vec<Taken>> {
    let container: Container = serde_json::from_slice(body).context(|| "an answer of a KME".to_owned())?;
    Ok(container.keys)
}

#[derive(Deserialize)]
struct Container {
    keys: Vec<Taken>,
}

#[derive(Deserialize, PartialEq)]
struct Taken {
    #[serde(rename = "key_ID")]
    id: String,
    key: String,
}

/// Fairness on a ring of ten whose links make less than all pairs want.
fn shares(effort: Effort) -> [Row; 2] {
    let setup = Setup {
        shape: Shape::Ring,
        sites: 10,
        link_rate: BitsPerSecond(200_000.0),
        paths: 1,
        warm_up: Duration::from_secs(effort.of(60, 5) as u64),
        time: Duration::from_secs(effort.of(120, 10) as u64),
        seed: 1,
    };
    let ring = fairness(&setup);
    let how = format!(
        "ring of 10, all {} ordered pairs want more than links of 200 kbit/s make; real cores in virtual time, {} s, \
         {:.0} keys a second, {:.2} of what max-min fair shares add up to",
        ring.pairs,
        setup.time.as_secs(),
        ring.keys_per_second,
        ring.of_ceiling
    );
    let what = "dkms, published, ring of 10";
    [
        Row::at_least("relay.jain", ring.jain, "", 0.9, how.clone()).beside(0.53, what),
        Row::at_least("relay.worst_pair", ring.worst, "of its fair share", 0.5, how).beside(0.31, what),
    ]
}

/// The longest time without a new key after a relay froze or died, on a ring of four with one relay on each way.
async fn fail_over(effort: Effort) -> Outcome<Row> {
    let links = [("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")];
    let mut ground = Ground::linked(&["a", "b", "c", "d"], &links, 4_000_000)?;
    ground.fill(0, effort.of(16 << 20, 4 << 20))?;
    ground.start_alone()?;
    let (near, far) = (site("a")?, site("d")?);
    ground.wait_for_key(&near, &far).await?;
    let load = ground.load(&near, 1)?;
    // What the machine and its disk let pass without a fault: the figure cannot be better than that.
    sleep(SETTLE).await;
    let calm = longest_gap(&mut load.call().await?).await?.as_secs_f64() * 1e3;
    let mut gaps = Vec::new();
    // Either relay, since which of the two ways is in use is the site's choice.
    for (relay, fault) in [("b", Fault::Frozen), ("c", Fault::Killed), ("c", Fault::Frozen), ("b", Fault::Killed)]
        .into_iter()
        .take(effort.of(4, 2))
    {
        sleep(SETTLE).await;
        let relay = site(relay)?;
        let mut call = load.call().await?;
        fault.begin(&mut ground, &relay)?;
        let gap = longest_gap(&mut call).await;
        fault.end(&mut ground, &relay)?;
        let gap = gap?;
        ground.wait_for_key(&near, &relay).await?;
        gaps.push((gap.as_secs_f64() * 1e3, fault));
    }
    let of = |wanted: Fault| gaps.iter().filter(|(_, fault)| *fault == wanted).map(|(gap, _)| *gap).fold(0.0, f64::max);
    let (frozen, killed) = (of(Fault::Frozen), of(Fault::Killed));
    let how = format!(
        "wall time, real processes, worst of {} rounds: a ring of four, keys made for the opposite site without pause, one \
         of the two relays frozen ({frozen:.0} ms) or killed ({killed:.0} ms); longest time without a new key in the {} s \
         after; {calm:.0} ms without a fault",
        gaps.len(),
        WATCHED.as_secs()
    );
    Ok(Row::at_most("relay.failover_ms", frozen.max(killed), "ms", 1_000.0, how))
}

/// What happens to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Its process stands still; its connections stay.
    Frozen,
    /// Its process is gone.
    Killed,
}

impl Fault {
    fn begin(self, ground: &mut Ground, relay: &SiteId) -> Outcome<()> {
        match self {
            Self::Frozen => signal(ground, relay, Signal::STOP),
            Self::Killed => ground.kill(relay),
        }
    }

    fn end(self, ground: &mut Ground, relay: &SiteId) -> Outcome<()> {
        match self {
            Self::Frozen => signal(ground, relay, Signal::CONT),
            Self::Killed => ground.start_site(relay),
        }
    }
}

fn signal(ground: &Ground, site: &SiteId, signal: Signal) -> Outcome<()> {
    let what = || format!("site {site}");
    let pid = ground.pids(&[site.as_str()]).first().and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
    let pid = pid.ok_or_else(|| Failure::new(format!("{} does not run", what())))?;
    kill_process(pid, signal).context(what)
}

/// The longest time in which the stock for the opposite site did not grow, from now on.
async fn longest_gap(call: &mut Call<'_>) -> Outcome<Duration> {
    let begun = Instant::now();
    let (mut stock, mut grown, mut longest) = (call.stock("app-d").await?, begun, Duration::ZERO);
    while begun.elapsed() < WATCHED {
        let now = call.stock("app-d").await?;
        longest = longest.max(grown.elapsed());
        if now > stock {
            (stock, grown) = (now, Instant::now());
        }
        sleep(GAP_EVERY).await;
    }
    Ok(longest)
}

/// A connection to a site that may still be starting.
async fn reached(load: &Load) -> Outcome<Call<'_>> {
    let begun = Instant::now();
    loop {
        match load.call().await {
            Err(error) if begun.elapsed() > LONGEST => return Err(error),
            Err(_) => sleep(LOOK_EVERY).await,
            Ok(call) => return Ok(call),
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
const GAP_EVERY: Duration = Duration::from_millis(2);
const WATCHED: Duration = Duration::from_secs(2);
/// Until what a fault left behind is over: a site that was silent is avoided for two seconds.
const SETTLE: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_secs(120);
const COMPARED: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(keys: u64, cpu_s: f64) -> Sample {
        Sample { at: Duration::ZERO, keys, cpu_s }
    }

    #[test]
    fn parts_have_as_many_keys_and_leave_the_start_out() {
        // Two seconds to start, then a thousand keys a second, then half as many; a part may begin in one and end in the
        // other.
        let steady = (0..=100).map(|at| sample(at * 10, 2.0 + at as f64 * 0.01));
        let slow = (1..=50).map(|at| sample(1_000 + at * 10, 3.0 + at as f64 * 0.02));
        let samples: Vec<Sample> = [sample(0, 0.0)].into_iter().chain(steady).chain(slow).collect();
        let parts = pieces(&samples, 3);
        let whole: Vec<f64> = parts.iter().map(|rate| rate.round()).collect();
        assert_eq!(whole, [1_000.0, 940.0, 500.0]);
        assert!(pieces(&[sample(0, 0.0), sample(0, 1.0)], 5).is_empty());
        assert!(pieces(&[], 5).is_empty());
        assert_eq!(pieces(&[sample(0, 0.0), sample(100, 1.0)], 1), [100.0]);
    }
}
