//! A root secret that a PKCS #11 token seals: a hardware security module, a smart card, or SoftHSM in tests.
//!
//! The token holds an AES-256 key that never leaves it (sensitive, not extractable, made by the token). It seals the
//! 32 bytes of the root secret with AES-GCM; the sealed bytes stand in a file of ours. At a start the token opens
//! them once. From then on the root secret is in the process's memory until the process ends, and the token may be
//! taken away: each commit would otherwise wait for it, and a token does a few hundred operations a second.

use std::path::{Path, PathBuf};

use crypto::secret::{Key256, SecretBytes};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as TokenError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::RootKey;
use super::protected::{LABEL_MAX, NONCE_LEN, Protected, SEALED_LEN, Seal};
use crate::Error;

/// Which token, and its PIN.
#[derive(Debug)]
pub struct Token {
    /// The maker's PKCS #11 module, a shared library.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Label of the AES key on it.
    pub key: String,
    /// The user's PIN.
    pub pin: SecretBytes,
}

impl RootKey {
    /// Opens a file made by [`RootKey::protect_with_token`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Token`], and [`Error::KeyFileRefused`] if the file is damaged or of another token.
    pub fn from_token(path: &Path, token: &Token) -> Result<Self, Error> {
        let refused = |reason| Error::KeyFileRefused { path: path.to_path_buf(), reason };
        let protected = Protected::read(path)?;
        let Seal::Token { token: label, key: key_label, nonce } = &protected.seal else {
            return Err(refused("its secret is sealed under a passphrase, not by a token"));
        };
        if (label, key_label) != (&token.token, &token.key) {
            return Err(refused("it was sealed by another token or key than the configuration names"));
        }
        let session = log_in(token)?;
        let key = find_key(&session, token)?.ok_or_else(|| failed(token, "it has no such key".to_owned()))?;
        let (mut nonce, binding) = (*nonce, protected.seal.binding());
        let mechanism = gcm(token, &mut nonce, &binding)?;
        let secret = session.decrypt(&mechanism, key, &protected.sealed).map(Zeroizing::new);
        let secret = secret.map_err(|error| match error {
            TokenError::Pkcs11(RvError::EncryptedDataInvalid | RvError::GeneralError, _) => {
                refused("the token does not open it: it is damaged or of another key")
            }
            error => failed(token, error.to_string()),
        })?;
        let secret = <&[u8; 32]>::try_from(secret.as_slice()).map_err(|_| refused("it does not hold a root secret"))?;
        Ok(Self::from_key(Key256::copy_of(secret)))
    }

    /// Lets a token seal the root secret into a file; a file that is there is replaced. The token makes its AES key
    /// if it has none of that label.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Token`].
    pub fn protect_with_token(&self, path: &Path, token: &Token, rng: &mut impl CryptoRng) -> Result<(), Error> {
        if token.token.len() > LABEL_MAX || token.key.len() > LABEL_MAX {
            return Err(Error::ApiMisuse(format!("labels have at most {LABEL_MAX} bytes")));
        }
        let session = log_in(token)?;
        let key = match find_key(&session, token)? {
            Some(key) => key,
            None => make_key(&session, token)?,
        };
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let seal = Seal::Token { token: token.token.clone(), key: token.key.clone(), nonce };
        let binding = seal.binding();
        let mechanism = gcm(token, &mut nonce, &binding)?;
        let sealed = self.secret().expose(|secret| session.encrypt(&mechanism, key, secret));
        let sealed = sealed.map_err(|error| failed(token, error.to_string()))?;
        if sealed.len() != SEALED_LEN {
            return Err(failed(token, format!("its AES-GCM gave {} bytes for 32", sealed.len())));
        }
        Protected { seal, sealed }.write(path)
    }
}

fn log_in(token: &Token) -> Result<Session, Error> {
    let refuse = |error: TokenError| failed(token, error.to_string());
    let module = Pkcs11::new(&token.module).map_err(refuse)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Another part of this process uses the module too.
        Ok(()) | Err(TokenError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(refuse(error)),
    }
    for slot in module.get_slots_with_token().map_err(refuse)? {
        if module.get_token_info(slot).map_err(refuse)?.label() == token.token {
            let session = module.open_rw_session(slot).map_err(refuse)?;
            let pin = token.pin.expose(|pin| String::from_utf8(pin.to_vec()));
            let pin = AuthPin::from(pin.map_err(|_| failed(token, "its PIN is not text".to_owned()))?);
            match session.login(UserType::User, Some(&pin)) {
                Ok(()) | Err(TokenError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => return Ok(session),
                Err(error) => return Err(refuse(error)),
            }
        }
    }
    Err(failed(token, "no token with this label is there".to_owned()))
}

/// The key, if it is there and cannot leave the token.
fn find_key(session: &Session, token: &Token) -> Result<Option<ObjectHandle>, Error> {
    let refuse = |error: TokenError| failed(token, error.to_string());
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(token.key.as_bytes().to_vec()),
    ];
    let keys = session.find_objects(&template).map_err(refuse)?;
    let [key] = keys[..] else {
        return if keys.is_empty() { Ok(None) } else { Err(failed(token, "it has several such keys".to_owned())) };
    };
    let wanted = [AttributeType::Sensitive, AttributeType::Extractable, AttributeType::ValueLen];
    let found = session.get_attributes(key, &wanted).map_err(refuse)?;
    let is_kept = found.contains(&Attribute::Sensitive(true)) && found.contains(&Attribute::Extractable(false));
    if !is_kept || !found.contains(&Attribute::ValueLen(32.into())) {
        return Err(failed(token, "its key is not an AES-256 key that stays on the token".to_owned()));
    }
    Ok(Some(key))
}

fn make_key(session: &Session, token: &Token) -> Result<ObjectHandle, Error> {
    let template = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::ValueLen(32.into()),
        Attribute::Label(token.key.as_bytes().to_vec()),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).map_err(|error| failed(token, error.to_string()))
}

fn gcm<'a>(token: &Token, nonce: &'a mut [u8; NONCE_LEN], aad: &'a [u8]) -> Result<Mechanism<'a>, Error> {
    let params = GcmParams::new(nonce, aad, 128.into()).map_err(|error| failed(token, error.to_string()))?;
    Ok(Mechanism::AesGcm(params))
}

fn failed(token: &Token, why: String) -> Error {
    Error::Token { token: token.token.clone(), key: token.key.clone(), why }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use crypto::domain::Domain;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    const FOLDER: &str = "STORE_TEST_TOKEN_FOLDER";

    /// SoftHSM finds its tokens by an environment variable, which only a new process can be given: the test runs
    /// itself again with it.
    #[test]
    fn a_token_seals_the_root_secret_and_keeps_its_key() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            return with_tokens(Path::new(&folder));
        }
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("softhsm2.conf");
        std::fs::create_dir(folder.path().join("tokens")).unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::write(&config, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).unwrap();
        for label in ["site", "other"] {
            let init = Command::new("softhsm2-util")
                .args(["--init-token", "--free", "--label", label, "--pin", "123456", "--so-pin", "654321"])
                .env("SOFTHSM2_CONF", &config)
                .output()
                .expect("softhsm2-util is installed by tests/peers/install.sh");
            assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        }
        let name = "root_key::token::tests::a_token_seals_the_root_secret_and_keeps_its_key";
        let inner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env("SOFTHSM2_CONF", &config)
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&inner.stdout);
        assert!(inner.status.success(), "{text}\n{}", String::from_utf8_lossy(&inner.stderr));
        assert!(text.contains("1 passed"), "{text}");
    }

    fn token(label: &str, key: &str, pin: &[u8]) -> Token {
        let module = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"].map(PathBuf::from);
        let module = module.into_iter().find(|path| path.exists()).expect("SoftHSM is installed");
        Token { module, token: label.into(), key: key.into(), pin: SecretBytes::copy_of(pin) }
    }

    fn with_tokens(folder: &Path) {
        let path = folder.join("root.sealed");
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let root = RootKey::random(&mut rng);
        let sealed = root.seal(Domain::SiteKeyring, &[], &SecretBytes::copy_of(b"x"), &mut rng);
        let ours = token("site", "qurrent root", b"123456");
        root.protect_with_token(&path, &ours, &mut rng).unwrap();
        let opened = RootKey::from_token(&path, &ours).unwrap();
        assert!(opened.open(Domain::SiteKeyring, &[], &sealed).is_ok());
        // A second file of the same token key, and a root key that moves from the token to a passphrase.
        root.protect_with_token(&folder.join("copy.sealed"), &ours, &mut rng).unwrap();
        assert!(RootKey::from_token(&folder.join("copy.sealed"), &ours).is_ok());

        let refused = |token: &Token| RootKey::from_token(&path, token).unwrap_err();
        assert!(matches!(refused(&token("site", "another key", b"123456")), Error::KeyFileRefused { .. }));
        assert!(matches!(refused(&token("other", "qurrent root", b"123456")), Error::KeyFileRefused { .. }));
        let mut missing = token("site", "qurrent root", b"123456");
        missing.module = "/nowhere/module.so".into();
        assert!(matches!(refused(&missing), Error::Token { .. }));
        assert!(matches!(
            root.protect_with_token(&folder.join("x"), &token("unknown", "k", b"123456"), &mut rng),
            Err(Error::Token { .. })
        ));
        let good = std::fs::read(&path).unwrap();
        for at in [good.len() - 1, good.len() - 40, 30] {
            let mut bent = good.clone();
            bent[at] ^= 1;
            std::fs::write(&path, bent).unwrap();
            let error = refused(&ours);
            assert!(matches!(error, Error::KeyFileRefused { .. }), "byte {at}: {error:?}");
        }
        std::fs::write(&path, good).unwrap();
        assert!(RootKey::from_token(&path, &ours).is_ok());

        // A key that could leave the token is refused.
        let session = log_in(&ours).unwrap();
        let loose = [
            Attribute::Token(true),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::Encrypt(true),
            Attribute::ValueLen(32.into()),
            Attribute::Label(b"loose".to_vec()),
        ];
        session.generate_key(&Mechanism::AesKeyGen, &loose).unwrap();
        let error = root.protect_with_token(&folder.join("x"), &token("site", "loose", b"123456"), &mut rng);
        assert!(matches!(&error, Err(Error::Token { why, .. }) if why.contains("stays on the token")), "{error:?}");
        session.logout().unwrap();
        drop(session);
        assert!(matches!(refused(&token("site", "qurrent root", b"000000")), Error::Token { .. }), "a wrong PIN");
        assert!(!format!("{ours:?}").contains("123456"));
    }
}
