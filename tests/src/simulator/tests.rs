//! The simulator as a reader sees it, over plain HTTP/1.0: no chunk sizes between the bytes.

use std::io::Read as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

const KEY: &str = "sdk-test";
const FIRST: &str = r#"{"flags":{"a":{"key":"a","version":1}},"segments":{}}"#;
const BOUND: Duration = Duration::from_secs(10);

async fn simulator() -> Simulator {
    let simulator = Simulator::start().await.unwrap();
    simulator.add_environment(KEY, Some("env-id"), Dataset::parse(FIRST).unwrap());
    simulator
}

async fn send(simulator: &Simulator, request: &str, headers: &str, body: &str) -> TcpStream {
    let mut connection = TcpStream::connect(simulator.address()).await.unwrap();
    let length = body.len();
    let text =
        format!("{request} HTTP/1.0\r\nAuthorization: {KEY}\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    connection.write_all(text.as_bytes()).await.unwrap();
    connection
}

/// Reads until the text ends with `end`.
async fn read_until(connection: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !text.ends_with(end.as_bytes()) {
            let byte = connection.read_u8().await.expect("the answer goes on");
            text.push(byte);
        }
    };
    timeout(BOUND, reading).await.expect("the text arrives");
    String::from_utf8(text).unwrap()
}

async fn read_to_end(mut connection: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(BOUND, connection.read_to_end(&mut bytes)).await.expect("the answer ends").unwrap();
    bytes
}

async fn answer(simulator: &Simulator, request: &str, headers: &str, body: &str) -> (String, Vec<u8>) {
    let bytes = read_to_end(send(simulator, request, headers, body).await).await;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("there is a head") + 4;
    (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end..].to_vec())
}

async fn wait_until_open(simulator: &Simulator, count: u64) {
    let waiting = async {
        while simulator.counters(KEY).streams_open != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("{:?}", simulator.counters(KEY)));
}

#[tokio::test]
async fn a_stream_carries_put_patch_delete_and_raw_text() {
    let simulator = simulator().await;
    let mut stream = send(&simulator, "GET /all", "User-Agent: Test\r\n", "").await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("x-ld-envid: env-id") && head.contains("text/event-stream"), "{head}");
    let put = format!("event: put\ndata: {{\"path\":\"/\",\"data\":{FIRST}}}\n\n");
    assert_eq!(read_until(&mut stream, "\n\n").await, put);

    simulator.patch(KEY, Kind::Flag, Item::parse(r#"{"key":"a","version":2}"#).unwrap());
    simulator.delete(KEY, Kind::Flag, "a", 3);
    simulator.send_raw(KEY, "nonsense\n\n");
    simulator.put(KEY);
    simulator.close_streams(KEY);
    let rest = String::from_utf8(read_to_end(stream).await).unwrap();
    let expected = concat!(
        "event: patch\ndata: {\"path\":\"/flags/a\",\"data\":{\"key\":\"a\",\"version\":2}}\n\n",
        "event: delete\ndata: {\"path\":\"/flags/a\",\"version\":3}\n\n",
        "nonsense\n\n",
        "event: put\ndata: {\"path\":\"/\",\"data\":{\"flags\":{},\"segments\":{}}}\n\n",
    );
    assert_eq!(rest, expected);
    wait_until_open(&simulator, 0).await;
    let counters = simulator.counters(KEY);
    assert_eq!((counters.stream_connections, counters.streams_open_peak), (1, 1));
    assert_eq!(counters.bytes_sent, u64::try_from(put.len() + expected.len()).unwrap());
    assert_eq!(counters.last_request["user-agent"], "Test");
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_longer_counted() {
    let simulator = simulator().await;
    let mut stream = send(&simulator, "GET /all", "", "").await;
    read_until(&mut stream, "\r\n\r\n").await;
    wait_until_open(&simulator, 1).await;
    drop(stream);
    wait_until_open(&simulator, 0).await;
}

#[tokio::test]
async fn a_muted_stream_misses_what_happens_and_a_heartbeat_comes_when_asked_for() {
    let simulator = simulator().await;
    let mut stream = send(&simulator, "GET /all", "", "").await;
    read_until(&mut stream, "}}}\n\n").await;
    simulator.mute(KEY);
    simulator.patch(KEY, Kind::Flag, Item::parse(r#"{"key":"b","version":2}"#).unwrap());
    simulator.unmute(KEY);
    simulator.set_heartbeat(KEY, Duration::from_millis(1));
    assert_eq!(read_until(&mut stream, ":\n:\n:\n").await, ":\n:\n:\n");
    assert_eq!(simulator.data(KEY).len(Kind::Flag), 2);
}

#[tokio::test]
async fn keys_and_filters_choose_the_environment() {
    let simulator = simulator().await;
    let filtered = r#"{"flags":{},"segments":{}}"#;
    simulator.add_environment(&format!("{KEY}?filter=a b"), None, Dataset::parse(filtered).unwrap());
    let (_, body) = answer(&simulator, "GET /sdk/latest-all?filter=a%20b", "", "").await;
    assert_eq!(body, filtered.as_bytes());
    let (head, _) = answer(&simulator, "GET /sdk/latest-all?filter=other", "", "").await;
    assert!(head.contains(" 401 "), "{head}");
    assert_eq!(simulator.unknown_keys(), 1);
    simulator.remove_environment(KEY);
    let (head, _) = answer(&simulator, "GET /all", "", "").await;
    assert!(head.contains(" 401 "), "{head}");
    let (head, _) = answer(&simulator, "POST /bulk", "", "[]").await;
    assert!(head.contains(" 202 "), "{head}");
}

#[tokio::test]
async fn polls_know_etags_and_gzip() {
    let simulator = simulator().await;
    let (head, body) = answer(&simulator, "GET /sdk/latest-all", "", "").await;
    assert_eq!(body, FIRST.as_bytes());
    let etag = simulator.data(KEY).etag();
    assert!(head.contains(&format!("etag: {etag}\r\n")), "{head}");
    let known = format!("If-None-Match: \"other\", W/{etag}\r\n");
    let (head, body) = answer(&simulator, "GET /sdk/latest-all", &known, "").await;
    assert!(head.contains(" 304 ") && body.is_empty(), "{head}");
    simulator.delete(KEY, Kind::Flag, "a", 2);
    let headers = format!("{known}Accept-Encoding: gzip\r\n");
    let (head, body) = answer(&simulator, "GET /sdk/latest-all", &headers, "").await;
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, r#"{"flags":{},"segments":{}}"#);
    let counters = simulator.counters(KEY);
    assert_eq!((counters.polls, counters.polls_not_modified), (3, 1));
}

#[tokio::test]
async fn faults_strike_as_often_as_told() {
    let simulator = simulator().await;
    simulator.set_fault_times(KEY, 1, Fault::Status(503));
    assert!(answer(&simulator, "GET /all", "", "").await.0.contains(" 503 "));
    assert!(answer(&simulator, "GET /sdk/latest-all", "", "").await.0.contains(" 200 "));
    simulator.set_fault(KEY, Fault::Redirect { status: 301, location: "/elsewhere".to_owned() });
    let (head, _) = answer(&simulator, "GET /all", "", "").await;
    assert!(head.contains(" 301 ") && head.contains("location: /elsewhere"), "{head}");
    simulator.set_fault(KEY, Fault::Refuse);
    assert!(read_to_end(send(&simulator, "GET /all", "", "").await).await.is_empty());
    assert_eq!(simulator.counters(KEY).faults, 3);
    assert_eq!(simulator.counters(KEY).stream_connections, 0);

    simulator.set_fault(KEY, Fault::SlowPayload(2000));
    let mut stream = send(&simulator, "GET /all", "", "").await;
    read_until(&mut stream, "}}}\n\n").await;
    simulator.set_fault(KEY, Fault::HangMidEvent);
    let stream = send(&simulator, "GET /all", "", "").await;
    wait_until_open(&simulator, 2).await;
    simulator.close_all_streams();
    let text = String::from_utf8(read_to_end(stream).await).unwrap();
    assert!(text.contains("event: put") && !text.contains("}}}"), "{text}");
}

#[tokio::test]
async fn it_goes_away_and_comes_back() {
    let simulator = simulator().await;
    let mut stream = send(&simulator, "GET /all", "", "").await;
    read_until(&mut stream, "}}}\n\n").await;
    simulator.go_away().await;
    read_to_end(stream).await;
    assert!(TcpStream::connect(simulator.address()).await.is_err());
    assert_eq!(simulator.counters(KEY).streams_open, 0);
    simulator.come_back().await.unwrap();
    assert!(answer(&simulator, "GET /sdk/latest-all", "", "").await.0.contains(" 200 "));
}

#[tokio::test]
async fn the_control_api_does_what_the_handle_does() {
    let simulator = simulator().await;
    let call = async |request: &str, body: &str| {
        let (head, body) = answer(&simulator, request, "", body).await;
        (head.contains(" 200 "), String::from_utf8(body).unwrap())
    };
    assert!(call("POST /_sim/environments?key=k2&id=i2", FIRST).await.0);
    assert!(call("POST /_sim/patch?key=k2&kind=flag", r#"{"key":"b","version":1}"#).await.0);
    assert!(call("POST /_sim/delete?key=k2&kind=flag&item=a&version=2", "").await.0);
    let expected = r#"{"flags":{"b":{"key":"b","version":1}},"segments":{}}"#;
    assert_eq!(call("GET /_sim/data?key=k2", "").await, (true, expected.to_owned()));
    assert!(call("POST /_sim/put?key=k2", FIRST).await.0);
    assert!(call("POST /_sim/status?key=k2&fault=slow:10&times=2", "").await.0);
    assert!(call("POST /_sim/close", "").await.0);
    let listed = r#"{"flags":1,"id":"i2","key":"k2","segments":0}"#;
    assert!(call("GET /_sim/environments", "").await.1.contains(listed));
    assert!(call("GET /_sim/counters?key=k2", "").await.1.contains(r#""streamConnections":0"#));
    let refusal = r#"{"error":"there is no environment of the key k3"}"#;
    assert_eq!(call("POST /_sim/put?key=k3", "").await, (false, refusal.to_owned()));
    assert!(!call("POST /_sim/status?key=k2&fault=nonsense", "").await.0);
}
