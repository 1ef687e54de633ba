//! The page as rendered from sample reports, and the server over a real socket.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::*;
use crate::report::AuditLine;

const NOW: UtcNanos = UtcNanos(1_772_366_400_000_000_000);

fn rendered(reports: &[SiteReport], now: UtcNanos) -> String {
    let network = sample::network();
    let layout = Layout::new(&network);
    page::document(&View::new(&network, reports, now), &layout).into_string()
}

fn later(seconds: u64) -> UtcNanos {
    UtcNanos(NOW.0 + seconds * 1_000_000_000)
}

/// What a reader sees: the text without its tags.
fn words(html: &str) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for character in html.chars() {
        match character {
            '<' => in_tag = true,
            '>' => {
                in_tag = false;
                text.push(' ');
            }
            _ if in_tag => {}
            '\u{a0}' | '\u{202f}' => text.push(' '),
            other => text.push(other),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The row of a table by its key.
fn row(html: &str, key: &str) -> String {
    let from = html.find(&format!("data-key=\"{key}\"")).unwrap_or_else(|| panic!("no row {key}"));
    let rest = &html[from..];
    words(&format!("<tr {}", &rest[..rest.find("</tr>").unwrap()]))
}

#[test]
fn an_empty_board_is_a_whole_page() {
    let html = rendered(&[], NOW);
    let text = words(&html);
    for words in [
        "Qurrent shanxi",
        "Sites reporting 0 / 5",
        "Links working 0 / 5",
        "Waiting for the first report",
        "Taiyuan has not reported yet",
        "No end-to-end key yet.",
        "No model was published yet.",
        "No audit entry yet.",
        "Linfen feeder terminal 1",
        "no session",
    ] {
        assert!(text.contains(words), "{words} is missing");
    }
    assert!(html.starts_with("<!DOCTYPE html>"));
}

#[test]
fn the_sample_shows_every_state() {
    let html = rendered(&sample::reports(NOW), NOW);
    let text = words(&html);
    for words in [
        "Sites reporting 5 / 5",
        "Links working 3 / 5",
        "Linfen – Luliang classical channel is down",
        "Jinzhong – Changzhi quantum channel is not lit",
        "gave up 1 block; last cause: QBER 25.1 %",
        "5 of 20 directions are below the low-water mark of 32 keys",
        "gateway sends at level otp-commands: partly information-theoretic",
        "Provincial dispatch centre",
        "Backup dispatch centre",
        "As of 2026-03-01 12:00:00 UTC",
    ] {
        assert!(text.contains(words), "{words} is missing in {text}");
    }
    let first = row(&html, "link taiyuan-jinzhong");
    assert!(first.contains("50 km up on 4.35 % 4.10 kbit/s 14.2 × 25 % 39 1 QBER"), "{first}");
    assert!(row(&html, "link linfen-luliang").contains("150 km down"));
    assert!(
        row(&html, "session linfen rtu-linfen-1 terminal")
            .contains("information-theoretic commands, interrogation, telemetry computational keep-alive level otp")
    );
    assert!(
        row(&html, "session taiyuan rtu-linfen-1 gateway")
            .contains("information-theoretic commands computational all else level otp-commands")
    );
    assert!(
        row(&html, "model grid-transformer-500m 2 c19e5501aa02f7bd").contains("Changzhi Jinzhong, Linfen, Taiyuan")
    );
    assert!(!html.contains("badge stale"), "nothing is stale");
    assert!(!html.contains("style="), "the content security policy refuses inline style");
    assert!(!html.contains("http://") && !html.contains("https://"), "nothing comes from elsewhere");
}

#[test]
fn every_level_of_the_policy_is_rated() {
    use view::Protection;
    for level in gateway::Level::ALL {
        assert!(Protection::of(level.name()) < Protection::Idle, "{level:?}");
        let (otp, cipher) = Protection::classes(level.name());
        assert_eq!(otp.is_none(), Protection::of(level.name()) == Protection::Computational, "{level:?}");
        assert!(cipher.is_some(), "{level:?}");
    }
    assert_eq!(Protection::of("none"), Protection::Idle);
    assert_eq!((Protection::of("OTP"), Protection::classes("OTP")), (Protection::Unrated, (None, None)));
}

#[test]
fn old_reports_are_marked() {
    let mut reports = sample::reports(NOW);
    assert!(!rendered(&reports, later(10)).contains("badge stale"));
    for report in &mut reports[1..] {
        report.made = later(30);
    }
    let site = reports[0].site.to_string();
    let html = rendered(&reports, later(34));
    assert!(row(&html, &format!("site {site}")).contains("stale 34 s old"));
    let text = words(&html);
    assert!(text.contains("Sites reporting 4 / 5"));
    assert!(text.contains("Changzhi has stopped reporting; its figures are stale"));
    // Both ends of its links have other ends that still report.
    assert!(row(&html, "link jinzhong-changzhi").contains("up"));

    for report in &mut reports {
        report.made = NOW;
    }
    let html = rendered(&reports, later(11));
    assert!(words(&html).contains("Links working 0 / 5"), "a stale report proves no working link");
    assert!(row(&html, "link taiyuan-jinzhong").contains("stale"));
    reports[0].made = later(100);
    assert!(words(&rendered(&reports, NOW)).contains("has a clock more than 100 s ahead"));
}

#[test]
fn hostile_text_stays_text() {
    let hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\r\n\u{0}&amp;";
    let mut reports = sample::reports(NOW);
    for report in &mut reports {
        report.version = hostile.to_owned();
        for link in &mut report.links {
            link.last_abort = Some(hostile.to_owned());
            link.qber = Some(f64::NAN);
            link.secret_bit_s = Some(f64::INFINITY);
            link.progress = f64::NAN;
        }
        for session in &mut report.terminals {
            session.level = hostile.to_owned();
            session.end = hostile.to_owned();
        }
        for model in &mut report.models {
            model.manifest = hostile.to_owned();
        }
        report.keys.supplied = u64::MAX;
        report.audit = vec![AuditLine {
            seq: u64::MAX,
            time: UtcNanos(u64::MAX),
            code: hostile.to_owned(),
            text: hostile.repeat(10_000),
        }];
    }
    let html = rendered(&reports, NOW);
    assert!(!html.contains("<script>") && !html.contains("<img"));
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;"));
    assert!(html.len() < 200_000, "long text is cut: {}", html.len());
    let text = words(&html);
    assert!(text.contains("not rated") && !row(&html, "audit taiyuan 18446744073709551615").contains("information"));
}

#[test]
fn a_disputed_manifest_is_a_fault() {
    let mut reports = sample::reports(NOW);
    reports[2].models[0].manifest = "00000000deadbeef".to_owned();
    let text = words(&rendered(&reports, NOW));
    assert!(text.contains("has more than one manifest: 00000000deadbeef at Linfen"), "{text}");
}

async fn served() -> (std::net::SocketAddr, Arc<Board>, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (board, stop) = (Arc::new(Board::new()), CancellationToken::new());
    let server = tokio::spawn(serve(listener, board.clone(), sample::network(), stop.clone()));
    (address, board, stop, server)
}

async fn request(address: std::net::SocketAddr, line: &str) -> BufReader<TcpStream> {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let text = format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    tcp.write_all(text.as_bytes()).await.unwrap();
    BufReader::new(tcp)
}

async fn answer(address: std::net::SocketAddr, line: &str) -> String {
    let mut text = String::new();
    request(address, line).await.read_to_string(&mut text).await.unwrap();
    text
}

/// Reads events until one holds `wanted`; how many it read.
async fn event_with(stream: &mut BufReader<TcpStream>, wanted: &str) -> usize {
    let mut events = 0;
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).await.unwrap() > 0, "the stream ended");
        events += usize::from(line.starts_with("data:"));
        if line.contains(wanted) {
            return events;
        }
    }
}

#[tokio::test]
async fn pages_and_apis_over_a_socket() {
    let (address, board, stop, server) = served().await;
    for report in sample::reports(clock::utc_now()) {
        board.add_site(report);
    }
    let page = answer(address, "GET /").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("Links working"), "{page}");
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        "content-type: text/html; charset=utf-8",
    ] {
        assert!(page.contains(header), "{header}");
    }
    for path in ["style.css", "live.js", "icon.svg"] {
        assert!(page.contains(path) && answer(address, &format!("GET /{path}")).await.starts_with("HTTP/1.1 200"));
    }
    assert!(answer(address, "GET /healthz").await.ends_with("ok\n"));
    let json = answer(address, "GET /api/report").await;
    let json: serde_json::Value = serde_json::from_str(json.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&json["network"], json["sites"].as_array().unwrap().len()), (&"shanxi".into(), 5));
    let metrics = answer(address, "GET /metrics").await;
    assert!(metrics.contains("qurrent_pair_ready_keys{site=\"taiyuan\",peer=\"changzhi\"} 256"), "{metrics}");
    assert!(metrics.contains("content-type: application/openmetrics-text") && metrics.ends_with("# EOF\n"));
    for (line, status) in [("POST /", 405), ("DELETE /api/report", 405), ("GET /nothing", 404), ("GET /../etc", 404)] {
        let answer = answer(address, line).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
        assert!(answer.contains("content-security-policy"), "{line}");
    }
    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn a_new_report_reaches_an_open_page() {
    let (address, board, stop, server) = served().await;
    let mut stream = request(address, "GET /events").await;
    event_with(&mut stream, "Waiting for the first report").await;
    let mut report = sample::reports(clock::utc_now()).remove(0);
    report.version = "line\r\nbreaks 9.8.7".to_owned();
    board.add_site(report);
    event_with(&mut stream, "9.8.7").await;
    // Several at once come as one later rendering; none is lost.
    for report in sample::reports(clock::utc_now()) {
        board.add_site(report);
    }
    assert!(event_with(&mut stream, "<dd>5 / 5</dd>").await <= 2);
    // An open page does not hold up the stop.
    stop.cancel();
    timeout(DRAIN_MAX, server).await.unwrap().unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn open_pages_are_bounded() {
    let (address, _board, stop, server) = served().await;
    let mut pages = Vec::new();
    for _ in 0..live::PAGES_MAX {
        let mut page = request(address, "GET /events").await;
        event_with(&mut page, "Waiting").await;
        pages.push(page);
    }
    let refused = answer(address, "GET /events").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"), "{refused}");
    // The page itself is still served, and a place that is left is free again.
    assert!(answer(address, "GET /").await.starts_with("HTTP/1.1 200"));
    stop.cancel();
    server.await.unwrap();
}
