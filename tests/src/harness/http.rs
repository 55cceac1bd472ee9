//! The little HTTP that tests speak themselves.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BOUND: Duration = Duration::from_secs(10);

/// An answer, read to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// `GET path`, for `/livez`, `/readyz?verbose`, `/metrics`, `/status`.
pub async fn http_get(address: SocketAddr, path: &str) -> anyhow::Result<HttpAnswer> {
    let asking = async {
        let mut connection = TcpStream::connect(address).await?;
        // 1.0, so that the answer is not chunked and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(BOUND, asking)
        .await
        .with_context(|| format!("{address}{path} did not answer in time"))?
        .with_context(|| format!("cannot get {address}{path}"))?;
    let text = String::from_utf8(answer).context("the answer is not UTF-8")?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("{address}{path} sent no full answer") };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(HttpAnswer { status: status.context("the answer has no status")?, body: body.to_owned() })
}
