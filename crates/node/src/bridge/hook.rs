//! A file, a command, or both, for each new key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::secret::SecretBytes;
use tokio::process::Command;
use types::id::KeyId;
use zeroize::Zeroizing;

use super::config::{Format, HookConfig, Pass};
use super::target::{check_folder, replace, run};
use crate::failure::{Context as _, Outcome};

/// A hook.
pub(super) struct Hook {
    config: HookConfig,
    name: String,
}

impl Hook {
    pub(super) fn new(config: &HookConfig, name: &str) -> Self {
        Self { config: config.clone(), name: name.to_owned() }
    }

    pub(super) fn describe(&self) -> String {
        let file = self.config.file.as_ref().map(|file| format!("file {}", file.display()));
        let command = self.config.command.first().map(|program| format!("command {program}"));
        [file, command].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    pub(super) fn check(&self) -> Outcome<()> {
        self.config.file.as_deref().map_or(Ok(()), check_folder)
    }

    /// The file first, so that the command finds it.
    pub(super) async fn apply(&self, id: KeyId, key: &SecretBytes) -> Outcome<()> {
        let text = self.written(key);
        if let Some(file) = &self.config.file {
            replace(file, &text)?;
        }
        self.command("key", Some((id, &text))).await
    }

    /// Takes the file away and says so to the command.
    pub(super) async fn remove(&self) -> Outcome<()> {
        if let Some(file) = &self.config.file
            && file.exists()
        {
            std::fs::remove_file(file).context(|| format!("cannot remove {}", file.display()))?;
        }
        self.command("lost", None).await
    }

    async fn command(&self, event: &str, key: Option<(KeyId, &[u8])>) -> Outcome<()> {
        let Some((program, words)) = self.config.command.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(words).env("QURRENT_EVENT", event).env("QURRENT_BRIDGE", &self.name);
        let Some((id, text)) = key else { return run(&mut command, b"").await.map(drop) };
        command.env("QURRENT_KEY_ID", id.to_string());
        if let Some(file) = &self.config.file {
            command.env("QURRENT_KEY_FILE", file);
        }
        match self.config.pass {
            Pass::Stdin => run(&mut command, text).await.map(drop),
            Pass::Environment => {
                // Raw keys were refused with the configuration; what is left is ASCII with a line break.
                let text = std::str::from_utf8(text).context(|| "key in the environment".to_owned())?;
                command.env("QURRENT_KEY", text.trim_end());
                run(&mut command, b"").await.map(drop)
            }
            Pass::None => run(&mut command, b"").await.map(drop),
        }
    }

    fn written(&self, key: &SecretBytes) -> Zeroizing<Vec<u8>> {
        let mut text = Zeroizing::new(match self.config.format {
            Format::Raw => return Zeroizing::new(key.expose(<[u8]>::to_vec)),
            Format::Hex => key.expose(|bits| hex::encode(bits)),
            Format::Base64 => key.expose(|bits| STANDARD.encode(bits)),
        });
        text.push('\n');
        Zeroizing::new(std::mem::take(&mut *text).into_bytes())
    }
}
