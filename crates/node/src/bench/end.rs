//! Two link ends in processes of their own over TCP: how fast detections become filed key.
//!
//! Bob's process prepares all detections first, from the photon simulation; the clock runs from the first
//! announcement until both ends have filed the last block. Disks are memory: their speed is another row's.

use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crypto::record::Change;
use crypto::secret::SecretBytes;
use link::{Input, LinkConfig, LinkEnd, MESSAGE_MAX, Output};
use optics::{Channel, Source};
use serde::{Deserialize, Serialize};
use types::network::{DecoySettings, Hardware, Link, Security};
use types::quantum::{Detection, Role, Slot};

use types::units::{Kilometres, Time};

use super::processor::process_seconds;
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};

/// What both processes together did.
#[derive(Debug)]
pub struct Run {
    /// Blocks filed at both ends.
    pub blocks: u64,
    /// Their sifted bits.
    pub sifted: u64,
    /// Error rate of the last block.
    pub qber: f64,
    /// Wall time from the first announcement to the last block.
    pub seconds: f64,
    /// Processor time of Alice's process.
    pub alice_cpu_s: f64,
    /// Processor time of Bob's process, without the preparation of detections.
    pub bob_cpu_s: f64,
}

/// What one process prints.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    blocks: u64,
    sifted: u64,
    qber: f64,
    seconds: f64,
    cpu_s: f64,
}

/// Starts both processes and waits for them.
///
/// # Errors
/// If one of them fails.
pub fn measure(blocks: usize) -> Outcome<Run> {
    let program = std::env::current_exe().context(|| "cannot find this program's file".to_owned())?;
    let spawn = |role: &str, address: &str| {
        Command::new(&program)
            .args(["bench-end", role, address, &blocks.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context(|| format!("cannot start {}", program.display()))
    };
    // Alice's first line says where she listens.
    let mut alice = spawn("alice", "127.0.0.1:0")?;
    let what = || "Alice's process".to_owned();
    let mut alice_says = BufReader::new(alice.stdout.take().ok_or_else(|| Failure::new(what()))?);
    let mut address = String::new();
    alice_says.read_line(&mut address).context(what)?;
    let bob = spawn("bob", address.trim())?;
    let bob_output = bob.wait_with_output().context(|| "Bob's process".to_owned())?;
    let bob_told = told("Bob", bob_output.status, &bob_output.stdout);
    if bob_told.is_err() {
        // Alice would wait for him for ever.
        drop(alice.kill());
    }
    let mut printed = Vec::new();
    alice_says.read_to_end(&mut printed).context(what)?;
    let alice_told = told("Alice", alice.wait().context(what)?, &printed);
    let (bob, alice) = (bob_told?, alice_told?);
    Ok(Run {
        blocks: bob.blocks,
        sifted: bob.sifted,
        qber: bob.qber,
        seconds: alice.seconds.max(bob.seconds),
        alice_cpu_s: alice.cpu_s,
        bob_cpu_s: bob.cpu_s,
    })
}

/// What a process printed before it ended well.
fn told(role: &str, status: ExitStatus, printed: &[u8]) -> Outcome<Told> {
    if !status.success() {
        return Err(Failure::new(format!("{role}'s process failed")));
    }
    serde_json::from_slice(printed).context(|| format!("{role}'s process"))
}

/// Runs one end in this process and prints what it did.
///
/// # Errors
/// If the other end does not come, or breaks the protocol.
pub fn run(role: Role, address: SocketAddr, blocks: u64) -> Outcome<()> {
    let told = End::new(role, blocks)?.run(address)?;
    crate::commands::print(true, &told, String::new)
}

/// A short link with fast detectors, whose blocks fill in a second of light.
#[must_use]
pub fn fast_link() -> Link {
    let hardware = Hardware {
        clock_hz: 1e9,
        attenuation_db_per_km: 0.2,
        efficiency: 0.2,
        dark_count_hz: 50.0,
        gate_ns: 1.0,
        misalignment: 0.03,
        dead_time_us: 0.05,
        afterpulse: 0.0,
        efficiency_ratio: 1.0,
        jitter_ps: 0.0,
        wavelength_nm: 1_550.0,
    };
    let decoy = DecoySettings {
        key_basis: 0.8,
        intensities: [0.4, 0.15, 0.0002],
        probabilities: [0.4, 0.4, 0.2],
        block_bits: 1_000_000,
    };
    Link::planned(hardware, Kilometres(20.0), decoy)
}

struct End {
    role: Role,
    core: LinkEnd,
    goal: u64,
    detections: Vec<Detection>,
    /// Detections that wait in the core.
    queued: u64,
    told: Told,
}

impl End {
    fn new(role: Role, goal: u64) -> Outcome<Self> {
        let what = || "link end".to_owned();
        let link = fast_link();
        let source = Source::new(&link.decoy, [1; 32]);
        let initial = SecretBytes::copy_of(&[5; link::authenticate::PROVISION_MIN]);
        let config = LinkConfig {
            link: link.id.clone(),
            role,
            decoy: link.decoy.clone(),
            security: Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 },
            proof: link.proof,
            beyond_one_way: link.beyond_one_way,
            reconciliation: link.reconciliation,
            peer_timeout: Duration::from_secs(60),
        };
        let records =
            LinkEnd::provision(&link.id, &initial).context(what)?.into_iter().filter_map(Change::into_put).collect();
        let mut core = LinkEnd::restore(config, records).context(what)?;
        let mut detections = Vec::new();
        let session = 1;
        let input = match role {
            Role::Alice => {
                Input::Transmitting { session, source: Box::new(move |slots: &[Slot]| source.prepare_all(slots)) }
            }
            Role::Bob => {
                let mut channel = Channel::new(&link, source.emission(), [2; 32]);
                while !enough(&link, detections.len(), goal) {
                    channel.run_until(Slot(channel.position().0 + 10_000_000), &mut detections);
                }
                Input::Receiving { session }
            }
        };
        core.handle_input(now(), input, &mut os_rng()).context(what)?;
        let told = Told { blocks: 0, sifted: 0, qber: 0.0, seconds: 0.0, cpu_s: 0.0 };
        Ok(Self { role, core, goal, detections, queued: 0, told })
    }

    fn run(mut self, address: SocketAddr) -> Outcome<Told> {
        let what = || format!("the other end at {address}");
        let tcp = match self.role {
            Role::Alice => {
                let listener = TcpListener::bind(address).context(what)?;
                crate::commands::say(&listener.local_addr().context(what)?.to_string())?;
                listener.accept().map(|(tcp, _)| tcp)
            }
            Role::Bob => TcpStream::connect(address),
        };
        let tcp = tcp.context(what)?;
        tcp.set_nodelay(true).context(what)?;
        let (begun, cpu) = (Instant::now(), process_seconds());
        let mut input = BufReader::with_capacity(BUFFER, tcp.try_clone().context(what)?);
        let mut output = BufWriter::with_capacity(BUFFER, tcp);
        self.input(Input::Connected, &mut output)?;
        let detections = std::mem::take(&mut self.detections);
        let mut given = 0;
        while self.told.blocks < self.goal {
            // As many as the core likes to have waiting, so that memory stays bounded.
            while given < detections.len() && self.queued < QUEUED_MAX {
                let end = (given + CHUNK).min(detections.len());
                self.queued += (end - given) as u64;
                self.input(Input::Detections(detections[given..end].to_vec()), &mut output)?;
                given = end;
            }
            output.flush().context(what)?;
            let message = read(&mut input).context(what)?;
            self.input(Input::Message(message), &mut output)?;
        }
        // The other end may still wait for the last verdict.
        output.flush().context(what)?;
        self.told.seconds = begun.elapsed().as_secs_f64();
        self.told.cpu_s = process_seconds() - cpu;
        // When its side closes, it has all that it needs.
        output.get_ref().shutdown(Shutdown::Write).context(what)?;
        let mut rest = Vec::new();
        drop(input.read_to_end(&mut rest));
        Ok(self.told)
    }

    fn input(&mut self, input: Input, output: &mut BufWriter<TcpStream>) -> Outcome<()> {
        let what = || "link end".to_owned();
        self.core.handle_input(now(), input, &mut os_rng()).context(what)?;
        while let Some(next) = self.core.poll_output() {
            let answer = match next {
                Output::Send(wire) => {
                    let len = u32::try_from(wire.len()).context(what)?;
                    output.write_all(&len.to_be_bytes()).and_then(|()| output.write_all(&wire)).context(what)?;
                    continue;
                }
                Output::Persist { seq, .. } => Input::Durable(seq),
                Output::Block(block) => {
                    self.told.blocks += 1;
                    self.told.sifted += block.record.sifted();
                    self.told.qber = block.record.qber().unwrap_or_default();
                    Input::Filed(block.seq)
                }
                Output::Aborted(record) => {
                    return Err(Failure::new(format!("a block was given up: {:?}", record.outcome)));
                }
                Output::Progress(progress) => {
                    self.queued = progress.queued;
                    continue;
                }
                Output::Alarm(_) => continue,
            };
            self.core.handle_input(now(), answer, &mut os_rng()).context(what)?;
        }
        Ok(())
    }
}

/// Whether so many detections fill so many blocks, with a margin for the next one that is begun.
fn enough(link: &Link, detections: usize, blocks: u64) -> bool {
    let q = link.decoy.key_basis;
    let sifted = detections as f64 * q * q;
    sifted > (blocks as f64 + 0.2) * f64::from(link.decoy.block_bits)
}

fn read(input: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut len = [0; 4];
    input.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > MESSAGE_MAX {
        return Err(std::io::Error::other("a message beyond the maximum"));
    }
    let mut wire = vec![0; len];
    input.read_exact(&mut wire)?;
    Ok(wire)
}

fn now() -> Time {
    crate::clock::now()
}

const BUFFER: usize = 1 << 18;
const CHUNK: usize = 100_000;
/// Well below what the core keeps waiting.
const QUEUED_MAX: u64 = 500_000;
