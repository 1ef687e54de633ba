//! Bridges: keys for programs that know nothing of QKD. A bridge is a process of its own beside the program; to the site
//! it is an SAE like any other. Two bridges at two sites keep their programs in step, key by key, over key-id
//! notifications.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | `bridge.toml` |
//! | `rotation` | the core: both roles of a change of key, without IO |
//! | `channel` | notifications to and from the other bridge, through the KMEs |
//! | `target` | where keys go: `wireguard`, `ike`, `hook` |
//! | [`run`] | the loop around them |
//!
//! Provided: a change of key in two phases; whatever message is lost, both ends keep a key, and they agree again with
//! the next change; a key is used once; nothing is ever replaced by an empty key unless the file says so.
//! Not provided: the programs themselves.

mod channel;
pub mod config;
mod hook;
mod ike;
mod rotation;
mod target;
mod wireguard;

use std::time::Duration;

use client::Kme;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::channel::{Channel, Heard};
use self::config::BridgeConfig;
use self::rotation::{Happened, Output, Rotation};
use self::target::Target;
use crate::config::SaeConfig;
use crate::failure::{Failure, Outcome};
use crate::{clock, commands};

/// How a bridge runs and says what it does.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Events as JSON, one object a line.
    pub json: bool,
    /// End after the first change of key.
    pub once: bool,
}

/// Runs a bridge until the token is cancelled.
///
/// # Errors
/// If it cannot start: the target is not there, certificates do not fit, the site cannot be reached. With `once`
/// also if no key was changed in time.
pub async fn run(config: BridgeConfig, manner: Manner, stop: CancellationToken) -> Outcome<()> {
    let sae = SaeConfig::read(&config.sae)?;
    let target = Target::new(&config)?;
    target.check().await?;
    let client = crate::sae::client(&sae)?;
    let channel = Channel::open(&sae, &config)?;
    let (heard, inbox) = mpsc::channel(HEARD_MAX);
    let listener = tokio::spawn(channel.listener()?.run(heard, stop.child_token()));
    let rotation = Rotation::new(config.role, config.interval(), config.max_age(), clock::now());
    let bridge = Bridge { config, manner, target, client, channel, rotation, switched: 0 };
    let outcome = bridge.serve(inbox, &stop).await;
    listener.abort();
    outcome
}

struct Bridge {
    config: BridgeConfig,
    manner: Manner,
    target: Target,
    client: Kme,
    channel: Channel,
    rotation: Rotation,
    switched: u64,
}

impl Bridge {
    async fn serve(mut self, mut inbox: mpsc::Receiver<Heard>, stop: &CancellationToken) -> Outcome<()> {
        self.say("started", &json!({ "target": self.target.describe(), "peer": self.config.peer }))?;
        let deadline = clock::now().after(self.config.max_age());
        loop {
            while let Some(output) = self.rotation.poll_output() {
                tokio::select! {
                    done = self.put_out(output) => done?,
                    () = stop.cancelled() => return self.stopped(),
                }
            }
            if self.manner.once && self.switched > 0 {
                return self.stopped();
            }
            if self.manner.once && clock::now() >= deadline {
                let remedy = "is the bridge at the other site running, with the other role and the same name?";
                return Err(Failure::new("no key was changed in time").remedy(remedy).exit_code(3));
            }
            let wait = self.rotation.poll_timeout().map_or(IDLE, |at| at.since(clock::now()).min(IDLE));
            tokio::select! {
                // First, because the listener ends with it too.
                biased;
                () = stop.cancelled() => return self.stopped(),
                heard = inbox.recv() => match heard {
                    Some(Heard::Said(verb, id)) => self.rotation.heard(clock::now(), verb, id),
                    Some(Heard::Gap) => self.say("gap", &json!({ "reason": "notifications were lost; the other bridge repeats them" }))?,
                    Some(Heard::Deaf(reason)) => self.say("waiting", &json!({ "reason": reason }))?,
                    None => return Err(Failure::new("the listener for notifications ended")),
                },
                () = sleep(wait) => {}
            }
            self.rotation.handle_timeout(clock::now());
        }
    }

    async fn put_out(&mut self, output: Output) -> Outcome<()> {
        match output {
            Output::Take => {
                let taken = self.client.encrypt(&self.config.peer, 1, KEY_BITS).await;
                let key = match taken.map(|mut keys| keys.pop()) {
                    Ok(Some(key)) => Some((key.id, key.key)),
                    Ok(None) => None,
                    Err(failure) => {
                        self.say("waiting", &json!({ "reason": failure.to_string() }))?;
                        None
                    }
                };
                self.rotation.taken(clock::now(), key);
            }
            Output::Collect(id) => {
                let ready = match self.client.decrypt(&self.config.peer, id).await {
                    Ok(key) => self.target.check().await.map(|()| key.key),
                    Err(error) => Err(error.into()),
                };
                if let Err(failure) = &ready {
                    self.say("not_ready", &json!({ "key_ID": id, "reason": failure.to_string() }))?;
                }
                self.rotation.collected(clock::now(), id, ready.ok());
            }
            Output::Tell(verb, id) => {
                if let Err(failure) = self.channel.tell(verb, id).await {
                    self.say("waiting", &json!({ "reason": failure.to_string() }))?;
                }
            }
            Output::Apply(id, key) => {
                let applied = self.target.apply(id, &key).await;
                if let Err(failure) = &applied {
                    self.say("not_applied", &json!({ "key_ID": id, "reason": failure.to_string() }))?;
                }
                self.rotation.applied(clock::now(), id, applied.is_ok());
            }
            Output::FallBack => {
                let policy = self.config.fallback;
                let reason = match self.target.fall_back(policy).await {
                    Ok(()) => "no fresh key for too long".to_owned(),
                    Err(failure) => failure.to_string(),
                };
                self.say("fallback", &json!({ "policy": policy, "reason": reason }))?;
            }
            Output::Happened(happened) => self.happened(happened)?,
        }
        Ok(())
    }

    fn happened(&mut self, happened: Happened) -> Outcome<()> {
        match happened {
            Happened::Switched(id) => {
                self.switched += 1;
                self.say("switched", &json!({ "key_ID": id, "count": self.switched }))
            }
            Happened::Abandoned(id, reason) => self.say("abandoned", &json!({ "key_ID": id, "reason": reason })),
            Happened::Stale(verb, id) => self.say("stale", &json!({ "key_ID": id, "said": verb.text() })),
        }
    }

    fn stopped(&self) -> Outcome<()> {
        self.say("stopped", &json!({ "count": self.switched }))
    }

    /// One line on standard output.
    fn say(&self, event: &str, fields: &serde_json::Value) -> Outcome<()> {
        let time = clock::rfc3339(clock::utc_now());
        let fields = fields.as_object();
        if self.manner.json {
            let mut line = serde_json::Map::new();
            for (name, value) in [("time", json!(time)), ("bridge", json!(self.config.name)), ("event", json!(event))] {
                line.insert(name.to_owned(), value);
            }
            line.extend(fields.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
            return commands::say(&serde_json::Value::Object(line).to_string());
        }
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let fields = fields.into_iter().flatten().map(|(name, value)| format!(" {name} {}", text(value)));
        commands::say(&format!("{time} {}: {event}{}", self.config.name, fields.collect::<String>()))
    }
}

/// Bits of every key: WireGuard's preshared key, and what AES-256 needs.
const KEY_BITS: u32 = 256;
const HEARD_MAX: usize = 64;
const IDLE: Duration = Duration::from_secs(5);
