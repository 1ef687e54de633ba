//! `bridge.toml`: one end of a bridge. The other end has the other role, the same name, and its own target.
//!
//! ```toml
//! name = "substation-tunnel"
//! sae = "sae.toml"
//! peer = "app-west"
//! role = "initiator"
//! [wireguard]
//! interface = "wg0"
//! peer = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use types::id::SaeId;

pub use super::rotation::Role;
use crate::failure::{Failure, Outcome};

/// One end of a bridge.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeConfig {
    /// Name of the bridge, the same at both ends: 1 to 32 characters of a-z, A-Z, 0-9, dot, hyphen and underscore.
    pub name: String,
    /// The SAE that this end acts as.
    pub sae: PathBuf,
    /// The SAE that the other end acts as.
    pub peer: SaeId,
    /// Which end leads.
    pub role: Role,
    /// Seconds from one key to the next; the initiator's counts.
    #[serde(default = "interval")]
    pub interval_s: u64,
    /// Seconds after which a key is too old and the fallback is done; three intervals when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
    /// What is done then.
    #[serde(default)]
    pub fallback: Fallback,
    /// Keys go to a WireGuard interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<WireGuardConfig>,
    /// Keys go to an IKEv2 daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike: Option<IkeConfig>,
    /// Keys go to a file or a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookConfig>,
}

/// What is done when no fresh key comes for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// The old key stays.
    #[default]
    Keep,
    /// The key is taken away: the program goes on with what else protects it.
    Remove,
    /// A random key that nobody else has: the connection ends with its next handshake.
    Shut,
}

/// `[wireguard]`.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WireGuardConfig {
    /// The interface.
    #[arg(long, value_name = "NAME")]
    pub interface: String,
    /// Public key of the peer at the other site, as `wg show` prints it.
    #[arg(id = "wg_peer", long = "wg-peer", value_name = "PUBLIC KEY")]
    pub peer: String,
    /// The `wg` program.
    #[arg(long = "wg", value_name = "PROGRAM", default_value = "wg")]
    #[serde(default = "wg")]
    pub program: PathBuf,
}

/// `[ike]`: a post-quantum preshared key of RFC 8784.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct IkeConfig {
    /// The file of secrets, which belongs to the bridge alone.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// The PPK's id, the same at both ends.
    #[arg(long, value_name = "ID")]
    pub ppk_id: String,
    /// How the file is written.
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub syntax: IkeSyntax,
    /// Command that makes the daemon read the file, word by word.
    #[arg(long, value_name = "WORD", num_args = 1.., allow_hyphen_values = true)]
    #[serde(default)]
    pub reload: Vec<String>,
}

/// How a file of secrets is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum IkeSyntax {
    /// swanctl.conf of strongSwan.
    #[default]
    Strongswan,
    /// ipsec.secrets of libreswan.
    Libreswan,
}

/// `[hook]`.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// File that holds the newest key.
    #[arg(long, value_name = "FILE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Command that is run for each key, word by word.
    #[arg(long, value_name = "WORD", num_args = 1.., allow_hyphen_values = true)]
    #[serde(default)]
    pub command: Vec<String>,
    /// How the command gets the key.
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub pass: Pass,
    /// How the key is written.
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub format: Format,
}

/// How a command gets the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// On its standard input.
    #[default]
    Stdin,
    /// In `QURRENT_KEY` of its environment.
    Environment,
    /// Not at all; it reads the file.
    None,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// 32 bytes.
    Raw,
    /// 64 hexadecimal digits and a line break.
    Hex,
    /// Base64 and a line break.
    #[default]
    Base64,
}

impl BridgeConfig {
    /// Reads `bridge.toml` and resolves its paths.
    ///
    /// # Errors
    /// If it cannot be read or is wrong; line and field are named.
    pub fn read(file: &Path) -> Outcome<Self> {
        let mut config: Self = crate::config::read_toml(file)?;
        let base = file.parent().unwrap_or(Path::new("."));
        config.sae = base.join(&config.sae);
        if let Some(ike) = &mut config.ike {
            ike.file = base.join(&ike.file);
        }
        if let Some(file) = config.hook.as_mut().and_then(|hook| hook.file.as_mut()) {
            *file = base.join(&*file);
        }
        config.checked().map_err(|failure| Failure::new(format!("configuration {}", file.display())).source(failure))
    }

    /// Checks what types do not say.
    ///
    /// # Errors
    /// If something is out of range or does not go together.
    pub fn checked(self) -> Outcome<Self> {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if self.name.is_empty() || self.name.len() > 32 || !self.name.bytes().all(named) {
            return Err(Failure::new(format!("name {:?} is not 1 to 32 of a-z, A-Z, 0-9, '.', '-', '_'", self.name)));
        }
        if !(1..=86_400).contains(&self.interval_s) {
            return Err(Failure::new("interval_s must be 1 to 86,400 seconds"));
        }
        if self.max_age_s.is_some_and(|age| age < self.interval_s || age > 10 * 86_400) {
            return Err(Failure::new("max_age_s must be at least interval_s and at most ten days"));
        }
        let targets = [self.wireguard.is_some(), self.ike.is_some(), self.hook.is_some()];
        if targets.iter().filter(|there| **there).count() != 1 {
            return Err(Failure::new("exactly one of [wireguard], [ike] and [hook] is needed"));
        }
        if let Some(wireguard) = &self.wireguard {
            wireguard.check()?;
        }
        if let Some(ike) = &self.ike {
            ike.check()?;
        }
        if let Some(hook) = &self.hook {
            hook.check(self.fallback)?;
        }
        Ok(self)
    }

    /// Time from one key to the next.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_s)
    }

    /// Time after which a key is too old; never shorter than a change of key may take.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        let default = (3 * self.interval_s).max(MAX_AGE_DEFAULT_MIN_S);
        Duration::from_secs(self.max_age_s.unwrap_or(default))
    }
}

impl WireGuardConfig {
    fn check(&self) -> Outcome<()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
        // Linux: IFNAMSIZ is 16 with its end.
        let interface = &self.interface;
        if interface.is_empty() || interface.len() > 15 || interface.starts_with('-') || !interface.bytes().all(plain) {
            return Err(Failure::new(format!("wireguard.interface {interface:?} is no name of an interface")));
        }
        match STANDARD.decode(&self.peer) {
            Ok(key) if key.len() == 32 => Ok(()),
            _ => Err(Failure::new("wireguard.peer is no WireGuard public key")
                .remedy("`wg show INTERFACE public-key` at the other site prints it")),
        }
    }
}

impl IkeConfig {
    fn check(&self) -> Outcome<()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@:".contains(&byte);
        if self.ppk_id.is_empty() || self.ppk_id.len() > 64 || !self.ppk_id.bytes().all(plain) {
            return Err(Failure::new("ike.ppk_id must be 1 to 64 of a-z, A-Z, 0-9, '.', '-', '_', '@', ':'"));
        }
        Ok(())
    }
}

impl HookConfig {
    fn check(&self, fallback: Fallback) -> Outcome<()> {
        if self.file.is_none() && self.command.is_empty() {
            return Err(Failure::new("[hook] needs a file, a command or both"));
        }
        if self.command.is_empty() && self.pass != Pass::default() {
            return Err(Failure::new("hook.pass needs hook.command"));
        }
        if self.pass == Pass::Environment && self.format == Format::Raw {
            return Err(Failure::new("raw keys do not fit into the environment").remedy("format = \"hex\""));
        }
        if fallback == Fallback::Shut {
            return Err(Failure::new("fallback \"shut\" is for WireGuard and IKE").remedy("keep or remove"));
        }
        Ok(())
    }
}

fn interval() -> u64 {
    120
}

fn wg() -> PathBuf {
    "wg".into()
}

const MAX_AGE_DEFAULT_MIN_S: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = \"t\"\nsae = \"sae.toml\"\npeer = \"b\"\nrole = \"responder\"\n";
    const WG: &str = "[wireguard]\ninterface = \"wg0\"\npeer = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\n";

    fn parse(text: &str) -> Result<BridgeConfig, String> {
        let config: BridgeConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.checked().map_err(|failure| failure.to_string())
    }

    #[test]
    fn defaults() {
        let config = parse(&format!("{HEAD}{WG}")).unwrap();
        assert_eq!((config.interval_s, config.max_age().as_secs(), config.fallback), (120, 360, Fallback::Keep));
        assert_eq!(config.wireguard.unwrap().program, PathBuf::from("wg"));
        assert_eq!(parse(&format!("interval_s = 1\n{HEAD}{WG}")).unwrap().max_age().as_secs(), 60);
    }

    #[test]
    fn the_example_of_the_guide_is_read() {
        let guide = include_str!("../../../../docs/guide/bridges.md");
        let examples: Vec<_> = guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        let bridges: Vec<_> = examples.iter().filter(|text| text.contains("role = ")).collect();
        assert!(bridges.len() >= 3);
        for text in bridges {
            parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn wrong_files_are_refused() {
        for (text, expected) in [
            (HEAD.to_owned(), "exactly one of"),
            (format!("{HEAD}{WG}[hook]\nfile = \"k\"\n"), "exactly one of"),
            (format!("interval_s = 0\n{HEAD}{WG}"), "interval_s"),
            (format!("max_age_s = 60\n{HEAD}{WG}"), "max_age_s"),
            (format!("{HEAD}{WG}").replace("\"t\"", "\"a b\""), "name"),
            (format!("{HEAD}{WG}").replace("wg0", "-rf"), "interface"),
            (format!("{HEAD}{WG}").replace("xTIB", "xTI"), "public key"),
            (format!("{HEAD}[hook]\n"), "needs a file"),
            (format!("{HEAD}[hook]\nfile = \"k\"\npass = \"environment\"\n"), "needs hook.command"),
            (format!("{HEAD}[hook]\ncommand = [\"x\"]\npass = \"environment\"\nformat = \"raw\"\n"), "do not fit"),
            (format!("fallback = \"shut\"\n{HEAD}[hook]\nfile = \"k\"\n"), "shut"),
            (format!("{HEAD}[ike]\nfile = \"k\"\nppk_id = \"a }}\"\n"), "ppk_id"),
            (format!("{HEAD}[ike]\nfile = \"k\"\nppk_id = \"a\"\nsyntax = \"racoon\"\n"), "racoon"),
            (format!("other = 1\n{HEAD}{WG}"), "other"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
