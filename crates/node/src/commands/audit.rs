//! `qurrent audit log|prove|export|verify`: a site's audit log, for its operator and for an auditor.
//!
//! `log`, `prove` and `export` only read, so they work beside a running node. With the site's signing seed at
//! hand they reach the last entry; without it, they reach the checkpoint that the site signed last.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use crypto::secret::Key256;
use crypto::sign::{SigningKey, VerifyingKey};
use jiff::Timestamp;
use ledger::{Entry, InclusionProof, LogReader, Origin, SignedCheckpoint, Source, Trust};
use serde::Serialize;
use serde_json::{Map, Value};
use types::event::FieldValue;
use types::units::UtcNanos;

use super::print;
use crate::config::{NodeConfig, read_network, read_secret};
use crate::failure::{Context as _, Failure, Outcome};
use crate::provision::{TrustFile, own_log_origin};

/// Audit log of a site: read it, prove an entry, export it, verify an export offline.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// Print as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Subcommand, Debug)]
enum AuditCommand {
    /// Show the last entries of a site's log.
    #[command(after_help = "Example:\n  qurrent audit log --config shanxi/sites/taiyuan/node.toml --last 50")]
    Log {
        /// The site's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How many entries.
        #[arg(long, default_value_t = 20, value_name = "N")]
        last: usize,
    },
    /// Prove that one entry is in a site's log: a C2SP tlog-proof that stands by itself.
    #[command(
        after_help = "Example:\n  qurrent audit prove --config shanxi/sites/taiyuan/node.toml --out entry-17.tlog-proof 17\n  qurrent audit verify --trust shanxi/trust.toml entry-17.tlog-proof"
    )]
    Prove {
        /// The site's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where the proof goes.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Number of the entry.
        entry: u64,
    },
    /// Write the logs of one or several sites into one file for an auditor.
    #[command(
        after_help = "Example:\n  qurrent audit export --config taiyuan/node.toml --config datong/node.toml --out audit.export"
    )]
    Export {
        /// Configuration of a site; repeat it for several.
        #[arg(long, value_name = "FILE", required = true)]
        config: Vec<PathBuf>,
        /// Where the export goes.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Write a trust file for these sites too. It must reach the auditor on another way than the export.
        #[arg(long, value_name = "FILE")]
        trust_out: Option<PathBuf>,
    },
    /// Verify an export or a proof offline: every byte, against the keys of the trust file and nothing else.
    #[command(
        after_help = "Example:\n  qurrent audit verify --trust shanxi/trust.toml audit.export\n  qurrent audit verify --trust shanxi/trust.toml --only shanxi/taiyuan/audit one-site.export"
    )]
    Verify {
        /// Origins of logs with key fingerprints, from a source that you trust.
        #[arg(long, value_name = "FILE")]
        trust: PathBuf,
        /// Expect only this log of the trust file; repeat it for several. Otherwise all of them must be there.
        #[arg(long, value_name = "ORIGIN")]
        only: Vec<String>,
        /// The export or proof.
        file: PathBuf,
    },
}

/// Runs an audit command.
///
/// # Errors
/// If a file cannot be read or written, or what is to be verified does not hold.
pub fn run(args: AuditArgs) -> Outcome<()> {
    match args.command {
        AuditCommand::Log { config, last } => {
            let entries = Place::of_config(&config)?.last(last)?;
            print(args.json, &entries, || entries.iter().map(EntryView::line).collect())
        }
        AuditCommand::Prove { config, out, entry } => {
            let (proof, view) = Place::of_config(&config)?.prove(entry)?;
            write_whole(&out, |file| Ok(file.write_all(proof.as_bytes())?))?;
            print(args.json, &view, || format!("{}proof of it is in {}", view.line(), out.display()))
        }
        AuditCommand::Export { config, out, trust_out } => {
            let places: Outcome<Vec<Place>> = config.iter().map(|config| Place::of_config(config)).collect();
            let (exported, trust) = export(&places?, &out)?;
            if let Some(file) = trust_out {
                let text = toml::to_string(&trust).context(|| "trust file".to_owned())?;
                write_whole(&file, |out| Ok(out.write_all(text.as_bytes())?))?;
            }
            print(args.json, &serde_json::json!({ "out": out, "logs": exported }), || {
                let line = |log: &LogView| format!("{}: {} entries\n", log.origin, log.entries);
                format!("{}exported to {}", exported.iter().map(line).collect::<String>(), out.display())
            })
        }
        AuditCommand::Verify { trust, only, file } => {
            let verified = verify(&read_trust(&trust, &only)?, &file)?;
            print(args.json, &verified, || verified.text())
        }
    }
}

/// Where a site's log is and what its heads are signed with.
struct Place {
    folder: PathBuf,
    origin: Origin,
    verifying_key: VerifyingKey,
    signing_key: Option<SigningKey>,
}

impl Place {
    fn of_config(file: &Path) -> Outcome<Self> {
        let config = NodeConfig::read(file)?;
        let origin = own_log_origin(&read_network(&config.network)?, &config)?;
        let folder = config.log_dir();
        if File::open(&config.signing_seed).is_ok() {
            let signing_key = SigningKey::from_seed(&Key256::copy_of(&*read_secret::<32>(&config.signing_seed)?));
            let verifying_key = signing_key.verifying_key().clone();
            return Ok(Self { folder, origin, verifying_key, signing_key: Some(signing_key) });
        }
        // The folder `trust` beside `trust.toml` has every site's verifying key.
        let public = config.trust.with_extension("").join(format!("{}.pub", config.site));
        let text = fs::read_to_string(&public).map_err(|error| {
            Failure::new(format!("neither {} nor {} can be read", config.signing_seed.display(), public.display()))
                .source(error)
                .remedy("run this as the site's user, or restore the verifying key")
        })?;
        let named = || format!("verifying key {}", public.display());
        let bytes = hex::decode(text.trim()).map_err(|error| error.to_string()).context(named)?;
        let verifying_key = VerifyingKey::from_bytes(&bytes).context(named)?;
        Ok(Self { folder, origin, verifying_key, signing_key: None })
    }

    fn source(&self) -> Source<'_> {
        Source {
            folder: &self.folder,
            origin: &self.origin,
            key: &self.verifying_key,
            signing_key: self.signing_key.as_ref(),
        }
    }

    fn reader(&self) -> Outcome<LogReader> {
        LogReader::open(&self.folder, &self.origin).context(|| format!("audit log {}", self.origin))
    }

    fn last(&self, n: usize) -> Outcome<Vec<EntryView>> {
        let entries = self.reader()?.last(n).context(|| format!("audit log {}", self.origin))?;
        Ok(entries.iter().map(EntryView::of).collect())
    }

    /// A head over all that can be proven now.
    fn head(&self, reader: &LogReader) -> Outcome<SignedCheckpoint> {
        let head = match &self.signing_key {
            Some(key) => reader.sign_head(key).map(Some),
            None => reader.last_checkpoint(&self.verifying_key),
        };
        head.context(|| format!("audit log {}", self.origin))?.ok_or_else(|| {
            Failure::new(format!("audit log {} has no signed checkpoint yet", self.origin))
                .remedy("start the node, or run this where the site's signing seed can be read")
        })
    }

    fn prove(&self, entry: u64) -> Outcome<(String, EntryView)> {
        let reader = self.reader()?;
        let head = self.head(&reader)?;
        let proof = reader.prove(entry, &head, &self.verifying_key).context(|| format!("audit log {}", self.origin))?;
        let entry = Entry::decode(proof.envelope()).context(|| format!("audit log {}", self.origin))?;
        Ok((proof.to_text(), EntryView::of(&entry)))
    }
}

fn export(places: &[Place], out: &Path) -> Outcome<(Vec<LogView>, TrustFile)> {
    let sources: Vec<Source<'_>> = places.iter().map(Place::source).collect();
    let mut exported = Vec::new();
    write_whole(out, |file| {
        exported = ledger::export(file, &sources)?;
        Ok(())
    })?;
    let mut trust = TrustFile::default();
    for log in &exported {
        trust.log.insert(log.origin.to_string(), log.fingerprint.clone());
    }
    let view = |log: ledger::export::Exported| LogView {
        origin: log.origin.to_string(),
        entries: log.entries,
        root: None,
        first: None,
        last: None,
    };
    Ok((exported.into_iter().map(view).collect(), trust))
}

fn read_trust(file: &Path, only: &[String]) -> Outcome<Trust> {
    let named = || format!("trust file {}", file.display());
    let trust: TrustFile = toml::from_str(&fs::read_to_string(file).context(named)?).context(named)?;
    let mut logs = trust.log;
    if let Some(unknown) = only.iter().find(|origin| !logs.contains_key(*origin)) {
        return Err(Failure::new(format!("{} has no log {unknown}", named())).remedy("see its section [log]"));
    }
    if !only.is_empty() {
        logs.retain(|origin, _| only.contains(origin));
    }
    if logs.is_empty() {
        return Err(Failure::new(format!("{} trusts no log", named())));
    }
    Trust::new(logs).context(named)
}

fn verify(trust: &Trust, path: &Path) -> Outcome<Verified> {
    let named = || format!("{} does not verify", path.display());
    let unreadable = || format!("cannot read {}", path.display());
    let mut file = File::open(path).context(unreadable)?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(PROOF_START.len() as u64).read_to_end(&mut start).context(unreadable)?;
    if start == PROOF_START.as_bytes() {
        Read::by_ref(&mut file)
            .take(InclusionProof::TEXT_MAX as u64 + 1)
            .read_to_end(&mut start)
            .context(unreadable)?;
        let text = String::from_utf8(start).context(named)?;
        let (entry, head) = InclusionProof::parse(&text).and_then(|proof| proof.verify(trust)).context(named)?;
        let log = LogView {
            origin: head.origin().to_string(),
            entries: head.size(),
            root: Some(hex::encode(head.root())),
            first: None,
            last: None,
        };
        return Ok(Verified { verified: true, logs: vec![log], entry: Some(EntryView::of(&entry)) });
    }
    let report = ledger::verify(std::io::Cursor::new(start).chain(file), trust).map_err(|error| {
        Failure::new(named())
            .source(error)
            .remedy("do not rely on this file; ask the site for it again, and keep this one")
    })?;
    let log = |site: ledger::verify::SiteReport| LogView {
        origin: site.origin.to_string(),
        entries: site.entries,
        root: Some(hex::encode(site.root)),
        first: site.first.map(time_text),
        last: site.last.map(time_text),
    };
    Ok(Verified { verified: true, logs: report.sites.into_iter().map(log).collect(), entry: None })
}

/// Writes a file that has its name only when it is whole.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Outcome<()> {
    let named = || format!("cannot write {}", path.display());
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut out = BufWriter::new(File::create(&partial).context(named)?);
    let written = write(&mut out).and_then(|()| Ok(out.flush()?)).and_then(|()| Ok(out.get_ref().sync_all()?));
    if let Err(error) = written.and_then(|()| Ok(fs::rename(&partial, path)?)) {
        // The first error is the one to report.
        drop(fs::remove_file(&partial));
        return Err(Failure::new(named()).source(error));
    }
    Ok(())
}

/// An entry for people and for `--json`.
#[derive(Debug, Serialize)]
struct EntryView {
    seq: u64,
    time: String,
    time_ns: u64,
    code: String,
    fields: Map<String, Value>,
}

impl EntryView {
    fn of(entry: &Entry) -> Self {
        let value = |value: &FieldValue| match value {
            FieldValue::Number(number) => Value::from(*number),
            FieldValue::Text(text) => Value::from(text.as_str()),
        };
        Self {
            seq: entry.seq,
            time: time_text(entry.time),
            time_ns: entry.time.0,
            code: entry.code.clone(),
            fields: entry.fields.iter().map(|(name, field)| (name.clone(), value(field))).collect(),
        }
    }

    /// One line; texts are quoted, so that no entry can look like two.
    fn line(&self) -> String {
        let mut line = format!("{:>8}  {}  {:<18}", self.seq, self.time, self.code);
        for (name, value) in &self.fields {
            line.push_str(&format!(" {name}={value}"));
        }
        line.push('\n');
        line
    }
}

#[derive(Debug, Serialize)]
struct LogView {
    origin: String,
    entries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

#[derive(Debug, Serialize)]
struct Verified {
    verified: bool,
    logs: Vec<LogView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<EntryView>,
}

impl Verified {
    fn text(&self) -> String {
        let mut text = String::new();
        for log in &self.logs {
            text.push_str(&format!("{}: {} entries", log.origin, log.entries));
            if let (Some(first), Some(last)) = (&log.first, &log.last) {
                text.push_str(&format!(", {first} to {last}"));
            }
            text.push('\n');
        }
        if let Some(entry) = &self.entry {
            text.push_str(&entry.line());
        }
        text.push_str("verified");
        text
    }
}

fn time_text(time: UtcNanos) -> String {
    Timestamp::from_nanosecond(i128::from(time.0)).map_or_else(|_| format!("{} ns", time.0), |at| at.to_string())
}

const PROOF_START: &str = "c2sp.org/tlog-proof@";

#[cfg(test)]
mod tests {
    use ledger::SiteLog;
    use types::event::Event;
    use types::id::LinkId;

    use super::*;

    fn place(folder: &Path, n: u8, with_seed: bool) -> (Place, SiteLog) {
        let key = || SigningKey::from_seed(&Key256::copy_of(&[n; 32]));
        let origin: Origin = format!("net/site-{n}/audit").parse().unwrap();
        let folder = folder.join(format!("{n}"));
        let mut log = SiteLog::open(&folder, origin.clone(), key(), UtcNanos(0)).unwrap();
        let event = Event::LinkDown { link: LinkId::new("a-b").unwrap(), reason: "fibre \"cut\"\n9 FORGED".into() };
        log.append(UtcNanos(1_700_000_000_000_000_000), &[Event::ServiceStopped, event]).unwrap();
        log.checkpoint().unwrap();
        log.append(UtcNanos(1_700_000_001_000_000_000), &[Event::ServiceStopped]).unwrap();
        let verifying_key = key().verifying_key().clone();
        (Place { folder, origin, verifying_key, signing_key: with_seed.then(key) }, log)
    }

    #[test]
    fn export_and_verify_beside_running_logs() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _running) = place(folder.path(), 1, true);
        let (second, _running_too) = place(folder.path(), 2, false);
        let out = folder.path().join("audit.export");
        let (exported, trust_file) = export(&[first, second], &out).unwrap();
        // Without the seed, the export reaches the last checkpoint.
        assert_eq!(exported.iter().map(|log| log.entries).collect::<Vec<_>>(), [3, 2]);
        let trust_path = folder.path().join("trust.toml");
        fs::write(&trust_path, toml::to_string(&trust_file).unwrap()).unwrap();
        let verified = verify(&read_trust(&trust_path, &[]).unwrap(), &out).unwrap();
        let json = serde_json::to_value(&verified).unwrap();
        assert_eq!((&json["logs"][0]["entries"], &json["verified"]), (&Value::from(3), &Value::from(true)));
        assert!(
            verified.text().starts_with("net/site-1/audit: 3 entries, 2023-11-14T22:13:20Z to 2023-11-14T22:13:21Z\n")
        );

        let mut bytes = fs::read(&out).unwrap();
        let middle = bytes.len() - 20;
        bytes[middle] ^= 1;
        fs::write(&out, &bytes).unwrap();
        let failure = verify(&read_trust(&trust_path, &[]).unwrap(), &out).unwrap_err().to_string();
        assert!(failure.contains("net/site-2/audit, entry 1") && failure.contains("what to do"), "{failure}");
        assert!(!folder.path().join("audit.export.partial").exists());
    }

    #[test]
    fn a_proof_stands_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (place, _running) = place(folder.path(), 1, true);
        let (proof, view) = place.prove(1).unwrap();
        assert_eq!(view.line().lines().count(), 1, "no text of an entry makes a line of its own");
        let path = folder.path().join("entry.tlog-proof");
        fs::write(&path, proof).unwrap();
        let fingerprint = hex::encode(place.verifying_key.fingerprint());
        let trust_path = folder.path().join("trust.toml");
        fs::write(
            &trust_path,
            format!("[log]\n\"net/site-1/audit\" = \"{fingerprint}\"\n\"net/other/audit\" = \"{fingerprint}\"\n"),
        )
        .unwrap();
        let trust = read_trust(&trust_path, &["net/site-1/audit".to_owned()]).unwrap();
        let verified = verify(&trust, &path).unwrap();
        assert_eq!((verified.logs[0].entries, verified.entry.as_ref().unwrap().seq), (3, 1));
        assert!(place.prove(3).is_err());
        assert!(read_trust(&trust_path, &["net/none/audit".to_owned()]).is_err());
        assert_eq!(place.last(2).unwrap().iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2]);
    }
}
