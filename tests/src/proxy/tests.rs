//! Each rule, on a server that answers with what it is sent.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

const BOUND: Duration = Duration::from_secs(10);
/// For as long nothing arrives where nothing is to arrive.
const SILENCE: Duration = Duration::from_millis(50);

/// A proxy before a server that sends back what it gets.
#[expect(clippy::disallowed_methods, reason = "the server ends with the runtime of the test")]
async fn before_an_echo() -> Proxy {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Proxy::start(address).await.unwrap()
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn echoed(connection: &mut TcpStream, text: &str) -> String {
    connection.write_all(text.as_bytes()).await.unwrap();
    read(connection, text.len()).await
}

async fn read(connection: &mut TcpStream, length: usize) -> String {
    let mut answer = vec![0; length];
    tokio::time::timeout(BOUND, connection.read_exact(&mut answer)).await.expect("it is answered").unwrap();
    String::from_utf8(answer).unwrap()
}

async fn assert_silent(connection: &mut TcpStream) {
    let read = tokio::time::timeout(SILENCE, connection.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

async fn assert_reset(connection: &mut TcpStream) {
    let error = tokio::time::timeout(BOUND, connection.read_u8()).await.expect("it ends").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn what_is_held_arrives_when_the_rule_is_lifted_and_what_is_lost_breaks_the_connection() {
    let proxy = before_an_echo().await;
    let mut connection = connect(&proxy).await;
    assert_eq!(echoed(&mut connection, "one").await, "one");
    for rule in [Rule::up(Flow::Hold), Rule::down(Flow::Hold), Rule::both(Flow::Hold)] {
        proxy.set(Client::All, rule);
        connection.write_all(b"two").await.unwrap();
        assert_silent(&mut connection).await;
        proxy.heal();
        assert_eq!(read(&mut connection, 3).await, "two");
    }
    for rule in [Rule::up(Flow::BlackHole), Rule::down(Flow::BlackHole)] {
        let mut connection = connect(&proxy).await;
        assert_eq!(echoed(&mut connection, "one").await, "one");
        proxy.set(Client::All, rule);
        connection.write_all(b"two").await.unwrap();
        assert_silent(&mut connection).await;
        proxy.heal();
        assert_reset(&mut connection).await;
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "measures the delay")]
async fn bytes_are_delayed_sliced_and_cut() {
    let proxy = before_an_echo().await;
    let mut connection = connect(&proxy).await;
    let begin = Instant::now();
    proxy.set(Client::All, Rule::both(Flow::Delay(SILENCE)));
    assert_eq!(echoed(&mut connection, "late").await, "late");
    assert!(begin.elapsed() >= SILENCE * 2);

    proxy.set(Client::All, Rule::down(Flow::Slice(3)));
    connection.write_all(b"abcdefgh").await.unwrap();
    let mut bytes = [0; 8];
    assert_eq!(connection.read(&mut bytes).await.unwrap(), 3);
    assert_eq!(read(&mut connection, 5).await, "defgh");

    proxy.set(Client::All, Rule::down(Flow::CutAfter(2)));
    connection.write_all(b"abcdefgh").await.unwrap();
    assert_eq!(read(&mut connection, 2).await, "ab");
    assert_reset(&mut connection).await;
}

#[tokio::test]
async fn connections_are_refused_and_reset_and_old_ones_are_told_from_new_ones() {
    let proxy = before_an_echo().await;
    let mut old = connect(&proxy).await;
    assert_eq!(echoed(&mut old, "one").await, "one");
    proxy.set_for_open(Client::All, Rule::both(Flow::Hold));
    let mut new = connect(&proxy).await;
    assert_eq!(echoed(&mut new, "two").await, "two");
    old.write_all(b"one").await.unwrap();
    assert_silent(&mut old).await;

    proxy.reset(Client::All);
    assert_reset(&mut old).await;
    assert_reset(&mut new).await;
    assert_eq!(echoed(&mut connect(&proxy).await, "three").await, "three");
    proxy.set(Client::All, Rule::RESET);
    assert_reset(&mut connect(&proxy).await).await;
    proxy.heal();

    proxy.go_away().await;
    let error = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    proxy.come_back().await.unwrap();
    assert_eq!(echoed(&mut connect(&proxy).await, "four").await, "four");
}

/// An end that a half-open connection does not tell is told when it is one no more.
#[tokio::test]
async fn an_end_is_held_and_swallowed_like_bytes() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    let next = async || {
        let client = connect(&proxy).await;
        (client, listener.accept().await.unwrap().0)
    };
    let (client, mut server) = next().await;
    proxy.set(Client::All, Rule::both(Flow::Hold));
    drop(client);
    assert_silent(&mut server).await;
    proxy.heal();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);

    let (client, mut server) = next().await;
    proxy.set(Client::All, Rule::up(Flow::BlackHole));
    drop(client);
    assert_silent(&mut server).await;
    // Nor does it learn by writing.
    server.write_all(b"are you there?").await.unwrap();
    assert_silent(&mut server).await;
    server.write_all(b"are you there?").await.unwrap();
    assert_silent(&mut server).await;
    proxy.heal();
    assert_reset(&mut server).await;
}

#[tokio::test]
async fn a_rule_is_for_one_process() {
    let proxy = before_an_echo().await;
    let mut own = connect(&proxy).await;
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{}; echo hello >&3; exec cat <&3 2>/dev/null", proxy.address().port());
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", &script]).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut other = command.spawn().unwrap();
    let mut output = other.stdout.take().unwrap();
    let mut text = [0; 6];
    tokio::time::timeout(BOUND, output.read_exact(&mut text)).await.unwrap().unwrap();
    assert_eq!(&text, b"hello\n");

    proxy.set(Client::Process(other.id().unwrap()), Rule::RESET);
    tokio::time::timeout(BOUND, other.wait()).await.expect("its connection was reset").unwrap();
    assert_eq!(echoed(&mut own, "still here").await, "still here");
    proxy.set(Client::Process(std::process::id()), Rule::RESET);
    assert_reset(&mut own).await;
}
