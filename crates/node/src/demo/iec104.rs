//! A small IEC 60870-5-104 master and outstation: the traffic that the demo protects.
//!
//! The outstation answers general interrogation, sends spontaneous measured values that carry their own
//! sequence numbers, and confirms single commands; the master checks that every value came once and in order,
//! that every command was confirmed, and both ends hash the bytes that they wrote and read. Enough of the
//! standard for a real dialogue (STARTDT, I, S and U frames, window of 12); it is no conformance tool.

use std::time::{Duration, Instant};

use crypto::hash::Sha256Stream;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, timeout};

use crate::failure::{Context as _, Failure, Outcome};

/// What one dialogue showed.
#[derive(Clone, Debug, Serialize)]
pub struct Dialogue {
    /// Spontaneous values sent by the outstation.
    pub sent: u64,
    /// Values that reached the master, each once and in order.
    pub received: u64,
    /// Points that answered the general interrogation.
    pub interrogated: u64,
    /// Commands confirmed by the outstation.
    pub commands: u64,
    /// Median time from command to confirmation, in milliseconds.
    pub command_ms_p50: f64,
    /// Longest time from command to confirmation, in milliseconds.
    pub command_ms_max: f64,
    /// Whether both byte streams arrived exactly as they were written.
    pub streams_equal: bool,
}

/// Runs an outstation on `listener` and a master against `via` for `length`.
///
/// # Errors
/// If they cannot talk, or a frame is malformed.
pub async fn run(
    listener: TcpListener,
    via: std::net::SocketAddr,
    length: Duration,
    rate_hz: u32,
) -> Outcome<Dialogue> {
    let outstation = tokio::spawn(outstation(listener, length, rate_hz));
    let master = Box::pin(master(via, length)).await;
    let outstation = outstation.await.context(|| "outstation".to_owned())?;
    let (mut master, outstation) = (master?, outstation?);
    master.round_trips_ms.sort_by(f64::total_cmp);
    let round_trips = &master.round_trips_ms;
    Ok(Dialogue {
        sent: outstation.sent,
        received: master.received,
        interrogated: master.interrogated,
        commands: round_trips.len() as u64,
        command_ms_p50: round_trips.get(round_trips.len() / 2).copied().unwrap_or_default(),
        command_ms_max: round_trips.last().copied().unwrap_or_default(),
        streams_equal: master.wrote == outstation.read && master.read == outstation.wrote,
    })
}

struct OutstationResult {
    sent: u64,
    wrote: [u8; 32],
    read: [u8; 32],
}

struct MasterResult {
    received: u64,
    interrogated: u64,
    round_trips_ms: Vec<f64>,
    wrote: [u8; 32],
    read: [u8; 32],
}

async fn outstation(listener: TcpListener, length: Duration, rate_hz: u32) -> Outcome<OutstationResult> {
    let accepted = timeout(CONNECT_MAX, listener.accept()).await;
    let (tcp, _) =
        accepted.context(|| "nobody called the outstation".to_owned())?.context(|| "outstation".to_owned())?;
    let mut station = Station::new(tcp);
    let mut spontaneous = interval(Duration::from_secs(1) / rate_hz.max(1));
    let mut sent = 0_u64;
    let mut started = None;
    loop {
        let sending = started.is_some_and(|at: Instant| at.elapsed() < length);
        tokio::select! {
            frame = station.frames.next() => match frame? {
                None => break,
                Some(frame) => {
                    if frame.is_startdt_act() {
                        station.write(&u_frame(0x0b)).await?;
                        started = Some(Instant::now());
                    } else if let Some(asdu) = station.accept(&frame)? {
                        station.answer(&asdu).await?;
                    }
                }
            },
            _ = spontaneous.tick(), if sending && station.window_open() => {
                sent += 1;
                let value = u16::try_from(sent % 60_000).unwrap_or_default();
                station.send(&measured(POINT_FIRST, COT_SPONTANEOUS, f32::from(value))).await?;
            }
        }
    }
    let (wrote, read) = station.digests();
    Ok(OutstationResult { sent, wrote, read })
}

async fn master(via: std::net::SocketAddr, length: Duration) -> Outcome<MasterResult> {
    let tcp = timeout(CONNECT_MAX, TcpStream::connect(via)).await.context(|| format!("gateway at {via}"))?;
    let mut station = Station::new(tcp.context(|| format!("gateway at {via}"))?);
    station.write(&u_frame(0x07)).await?;
    let first = timeout(ANSWER_MAX, station.frames.next()).await.context(|| "no answer to STARTDT".to_owned())??;
    if !first.is_some_and(|frame| frame.is_startdt_con()) {
        return Err(Failure::new("the outstation did not confirm STARTDT"));
    }
    station.send(&interrogation(COT_ACTIVATION)).await?;
    let begun = Instant::now();
    let mut command_tick = interval(length / COMMANDS);
    let mut asked: Option<Instant> = None;
    let (mut received, mut interrogated, mut round_trips_ms) = (0_u64, 0_u64, Vec::new());
    // After `length` the outstation sends no more; what is under way arrives within the grace time.
    while begun.elapsed() < length + GRACE {
        tokio::select! {
            frame = station.frames.next() => {
                let Some(frame) = frame? else { return Err(Failure::new("the connection through the gateway broke")) };
                let Some(asdu) = station.accept(&frame)? else { continue };
                match (asdu.kind, asdu.cause) {
                    (TYPE_MEASURED, COT_SPONTANEOUS) => {
                        received += 1;
                        if asdu.value != f32::from(u16::try_from(received % 60_000).unwrap_or_default()) {
                            return Err(Failure::new(format!("value {} came in place of value {received}", asdu.value)));
                        }
                    }
                    (TYPE_MEASURED, COT_INTERROGATED) => interrogated += 1,
                    (TYPE_COMMAND, COT_CONFIRMED) => {
                        if let Some(at) = asked.take() {
                            round_trips_ms.push(at.elapsed().as_secs_f64() * 1e3);
                        }
                    }
                    _ => {}
                }
                station.acknowledge().await?;
            }
            _ = command_tick.tick(), if asked.is_none() && begun.elapsed() < length => {
                asked = Some(Instant::now());
                station.send(&command(round_trips_ms.len() % 2 == 0, COT_ACTIVATION)).await?;
            }
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    let (wrote, read) = station.digests();
    station.close().await;
    Ok(MasterResult { received, interrogated, round_trips_ms, wrote, read })
}

/// One end of a 104 connection: frames, sequence numbers, digests.
struct Station {
    frames: Frames,
    out: OwnedWriteHalf,
    wrote: Sha256Stream,
    send_seq: u16,
    acknowledged: u16,
    receive_seq: u16,
    unacknowledged: u16,
}

impl Station {
    fn new(tcp: TcpStream) -> Self {
        drop(tcp.set_nodelay(true));
        let (input, out) = tcp.into_split();
        Self {
            frames: Frames { input, buffer: Vec::new(), read: Sha256Stream::default() },
            out,
            wrote: Sha256Stream::default(),
            send_seq: 0,
            acknowledged: 0,
            receive_seq: 0,
            unacknowledged: 0,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.wrote.update(bytes);
        self.out.write_all(bytes).await.context(|| "104 connection".to_owned())
    }

    /// Sends an ASDU in an I frame.
    async fn send(&mut self, asdu: &[u8]) -> Outcome<()> {
        let mut frame = vec![START, u8::try_from(asdu.len() + 4).context(|| "ASDU length".to_owned())?];
        frame.extend_from_slice(&(self.send_seq << 1).to_le_bytes());
        frame.extend_from_slice(&(self.receive_seq << 1).to_le_bytes());
        frame.extend_from_slice(asdu);
        self.send_seq = (self.send_seq + 1) & SEQ_MASK;
        self.unacknowledged = 0;
        self.write(&frame).await
    }

    fn window_open(&self) -> bool {
        (self.send_seq.wrapping_sub(self.acknowledged) & SEQ_MASK) < WINDOW_K
    }

    /// Takes the counters of a frame; gives the ASDU of an I frame.
    fn accept(&mut self, frame: &Frame) -> Outcome<Option<Asdu>> {
        let control = frame.0.get(2..6).unwrap_or_default();
        let &[c1, c2, c3, c4] = control else { return Err(Failure::new("short 104 frame")) };
        if c1 & 3 == 3 {
            return Ok(None);
        }
        self.acknowledged = u16::from_le_bytes([c3, c4]) >> 1;
        if c1 & 1 == 1 {
            return Ok(None);
        }
        if u16::from_le_bytes([c1, c2]) >> 1 != self.receive_seq {
            return Err(Failure::new("an I frame is lost or repeated"));
        }
        self.receive_seq = (self.receive_seq + 1) & SEQ_MASK;
        self.unacknowledged += 1;
        Asdu::parse(frame.0.get(6..).unwrap_or_default()).map(Some)
    }

    /// Sends an S frame when the window w is reached.
    async fn acknowledge(&mut self) -> Outcome<()> {
        if self.unacknowledged < WINDOW_W {
            return Ok(());
        }
        self.unacknowledged = 0;
        let [low, high] = (self.receive_seq << 1).to_le_bytes();
        self.write(&[START, 4, 1, 0, low, high]).await
    }

    /// The outstation's answer to an interrogation or a command.
    async fn answer(&mut self, asdu: &Asdu) -> Outcome<()> {
        match asdu.kind {
            TYPE_INTERROGATION => {
                self.send(&interrogation(COT_CONFIRMED)).await?;
                for point in 0..POINTS {
                    self.send(&measured(POINT_FIRST + point, COT_INTERROGATED, 0.0)).await?;
                }
                self.send(&interrogation(COT_TERMINATED)).await
            }
            TYPE_COMMAND => self.send(&command(true, COT_CONFIRMED)).await,
            _ => Ok(()),
        }
    }

    fn digests(&self) -> ([u8; 32], [u8; 32]) {
        (self.wrote.clone().finish(), self.frames.read.clone().finish())
    }

    async fn close(mut self) {
        drop(self.out.shutdown().await);
    }
}

/// Reads whole frames; cancelling a read loses nothing.
struct Frames {
    input: OwnedReadHalf,
    buffer: Vec<u8>,
    read: Sha256Stream,
}

struct Frame(Vec<u8>);

impl Frame {
    fn is_startdt_act(&self) -> bool {
        self.0.get(2) == Some(&0x07)
    }

    fn is_startdt_con(&self) -> bool {
        self.0.get(2) == Some(&0x0b)
    }
}

impl Frames {
    async fn next(&mut self) -> Outcome<Option<Frame>> {
        loop {
            if let Some(&[start, length]) = self.buffer.first_chunk::<2>() {
                if start != START || length < 4 {
                    return Err(Failure::new("malformed 104 frame"));
                }
                let whole = usize::from(length) + 2;
                if self.buffer.len() >= whole {
                    let rest = self.buffer.split_off(whole);
                    let frame = std::mem::replace(&mut self.buffer, rest);
                    self.read.update(&frame);
                    return Ok(Some(Frame(frame)));
                }
            }
            if self.input.read_buf(&mut self.buffer).await.context(|| "104 connection".to_owned())? == 0 {
                return Ok(None);
            }
        }
    }
}

struct Asdu {
    kind: u8,
    cause: u8,
    value: f32,
}

impl Asdu {
    fn parse(bytes: &[u8]) -> Outcome<Self> {
        let (Some(&kind), Some(&cause)) = (bytes.first(), bytes.get(2)) else {
            return Err(Failure::new("short ASDU"));
        };
        let value = bytes.get(9..13).and_then(|value| value.try_into().ok()).map(f32::from_le_bytes);
        Ok(Self { kind, cause: cause & 0x3f, value: value.unwrap_or_default() })
    }
}

fn u_frame(function: u8) -> [u8; 6] {
    [START, 4, function, 0, 0, 0]
}

fn header(kind: u8, cause: u8, point: u16) -> Vec<u8> {
    let [low, high] = point.to_le_bytes();
    vec![kind, 1, cause, 0, STATION, 0, low, high, 0]
}

fn interrogation(cause: u8) -> Vec<u8> {
    let mut asdu = header(TYPE_INTERROGATION, cause, 0);
    asdu.push(20);
    asdu
}

fn measured(point: u16, cause: u8, value: f32) -> Vec<u8> {
    let mut asdu = header(TYPE_MEASURED, cause, point);
    asdu.extend_from_slice(&value.to_le_bytes());
    asdu.push(0);
    asdu
}

fn command(on: bool, cause: u8) -> Vec<u8> {
    let mut asdu = header(TYPE_COMMAND, cause, 5_000);
    asdu.push(u8::from(on));
    asdu
}

// IEC 60870-5-101, 7.2.1.1 and 7.2.3: type identifications and causes of transmission.
const TYPE_MEASURED: u8 = 13;
const TYPE_COMMAND: u8 = 45;
const TYPE_INTERROGATION: u8 = 100;
const COT_SPONTANEOUS: u8 = 3;
const COT_ACTIVATION: u8 = 6;
const COT_CONFIRMED: u8 = 7;
const COT_TERMINATED: u8 = 10;
const COT_INTERROGATED: u8 = 20;
// IEC 60870-5-104, 5: start byte, and the default windows k and w of clause 9.6.
const START: u8 = 0x68;
const WINDOW_K: u16 = 12;
const WINDOW_W: u16 = 8;
const SEQ_MASK: u16 = 0x7fff;

const STATION: u8 = 47;
const POINT_FIRST: u16 = 1_000;
// With its confirmation and termination an interrogation then just fills the window.
const POINTS: u16 = 10;
const COMMANDS: u32 = 20;
const GRACE: Duration = Duration::from_millis(1_200);
const CONNECT_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_direct_dialogue_loses_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialogue = run(listener, address, Duration::from_secs(1), 200).await.unwrap();
        assert_eq!(dialogue.sent, dialogue.received);
        assert_eq!(dialogue.interrogated, u64::from(POINTS));
        assert!(dialogue.sent > 50 && dialogue.commands > 5 && dialogue.streams_equal, "{dialogue:?}");
    }
}
