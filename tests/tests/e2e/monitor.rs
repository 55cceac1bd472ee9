//! Every command that Redis carries out, also those of scripts, as `MONITOR` tells them.

use flotilla_tests::harness::RedisServer;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// An open `MONITOR` connection.
pub(crate) struct Monitor {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
    connection: redis::aio::MultiplexedConnection,
    reads: u32,
}

/// One command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether a script ran it.
    pub(crate) by_script: bool,
    /// Name and arguments, in the form in which Redis escapes them.
    pub(crate) words: Vec<String>,
}

impl Monitor {
    pub(crate) async fn start(redis: &RedisServer) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
        let connection = redis.connection().await.unwrap();
        Self { lines, connection, reads: 0 }
    }

    /// What was carried out since the start, or since the last call.
    pub(crate) async fn seen(&mut self) -> Vec<Seen> {
        self.reads += 1;
        let last = format!("monitor-read-{}", self.reads);
        let _: String = redis::cmd("ECHO").arg(&last).query_async(&mut self.connection).await.unwrap();
        let mut all = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            let Some(seen) = parse(&line) else { continue };
            if seen.words.last() == Some(&last) {
                break;
            }
            all.push(seen);
        }
        all
    }

    /// The commands of that name that scripts ran.
    pub(crate) fn by_scripts<'a>(seen: &'a [Seen], name: &str) -> Vec<&'a Seen> {
        seen.iter().filter(|seen| seen.by_script && seen.words[0].eq_ignore_ascii_case(name)).collect()
    }
}

/// Reads `+1700000000.123456 [0 lua] "HSET" "key" "field" "a \"quoted\" value"`.
fn parse(line: &str) -> Option<Seen> {
    let (head, rest) = line.split_once("] ")?;
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match (&mut word, character) {
            (None, '"') => word = Some(String::new()),
            (Some(_), '"') => words.extend(word.take()),
            (Some(word), '\\') => {
                word.push('\\');
                word.extend(characters.next());
            }
            (Some(word), other) => word.push(other),
            (None, _) => {}
        }
    }
    Some(Seen { by_script: head.ends_with(" lua"), words })
}
