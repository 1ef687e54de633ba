//! The post-quantum preshared key of IKEv2 (RFC 8784), as a file of secrets that the daemon reads anew.
//!
//! The file belongs to the bridge: it holds one PPK, is replaced at once, and only its owner can read it. IKE mixes the
//! PPK in when it sets up or reauthenticates an IKE SA, so what runs goes on.

use crypto::secret::SecretBytes;
use tokio::process::Command;
use types::id::KeyId;
use zeroize::Zeroizing;

use super::config::{Fallback, IkeConfig, IkeSyntax};
use super::target::{check_folder, replace, run};
use crate::entropy::os_rng;
use crate::failure::Outcome;

/// A file of secrets.
pub(super) struct IkeFile {
    config: IkeConfig,
    name: String,
}

impl IkeFile {
    pub(super) fn new(config: &IkeConfig, name: &str) -> Self {
        Self { config: config.clone(), name: name.to_owned() }
    }

    pub(super) fn describe(&self) -> String {
        format!("PPK {} in {}", self.config.ppk_id, self.config.file.display())
    }

    pub(super) fn check(&self) -> Outcome<()> {
        check_folder(&self.config.file)
    }

    pub(super) async fn apply(&self, id: KeyId, key: &SecretBytes) -> Outcome<()> {
        self.write(&self.text(&id.to_string(), key)).await
    }

    pub(super) async fn fall_back(&self, policy: Fallback) -> Outcome<()> {
        match policy {
            Fallback::Keep => Ok(()),
            Fallback::Remove => self.write(HEADER).await,
            Fallback::Shut => self.write(&self.text("none", &SecretBytes::random(32, &mut os_rng()))).await,
        }
    }

    async fn write(&self, text: &str) -> Outcome<()> {
        replace(&self.config.file, text.as_bytes())?;
        match self.config.reload.split_first() {
            Some((program, words)) => run(Command::new(program).args(words), b"").await.map(drop),
            None => Ok(()),
        }
    }

    fn text(&self, key_id: &str, key: &SecretBytes) -> Zeroizing<String> {
        let hex = Zeroizing::new(key.expose(|bits| hex::encode(bits)));
        let mut text = Zeroizing::new(String::with_capacity(512));
        let IkeConfig { ppk_id, syntax, .. } = &self.config;
        // A section's name may not hold dots.
        let section = self.name.replace('.', "_");
        let parts: &[&str] = match syntax {
            IkeSyntax::Strongswan => &[
                HEADER,
                "# key ID ",
                key_id,
                "\nsecrets {\n    ppk-",
                &section,
                " {\n        id = \"",
                ppk_id,
                "\"\n        secret = 0x",
                &hex,
                "\n    }\n}\n",
            ],
            // ipsec.secrets(5): 0x begins hexadecimal digits, so that both syntaxes name the same 32 bytes.
            IkeSyntax::Libreswan => {
                &[HEADER, "# key ID ", key_id, "\n%any %any : PPKS \"", ppk_id, "\" 0x", &hex, "\n"]
            }
        };
        parts.iter().for_each(|part| text.push_str(part));
        text
    }
}

const HEADER: &str = "# Written by a Qurrent bridge; changes are lost.\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(syntax: IkeSyntax) -> String {
        let config = IkeConfig { file: "x".into(), ppk_id: "ppk@east".to_owned(), syntax, reload: Vec::new() };
        let file = IkeFile::new(&config, "a.b");
        file.text("id", &SecretBytes::copy_of(&[0xab; 32])).to_string()
    }

    #[test]
    fn files_are_pinned() {
        let hex = "ab".repeat(32);
        let expected = format!(
            "{HEADER}# key ID id\nsecrets {{\n    ppk-a_b {{\n        id = \"ppk@east\"\n        secret = 0x{hex}\n    }}\n}}\n"
        );
        assert_eq!(text(IkeSyntax::Strongswan), expected);
        let expected = format!("{HEADER}# key ID id\n%any %any : PPKS \"ppk@east\" 0x{hex}\n");
        assert_eq!(text(IkeSyntax::Libreswan), expected);
    }
}
