//! `residua probe`: asks a page of a running residua, for health checks where there is no shell and no curl.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};

/// Longest wait to connect, to write, and between two parts of the answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Of the answer, as much as anybody would read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[derive(clap::Args)]
pub struct Args {
    /// Page: /livez or /readyz
    #[arg(default_value = "http://127.0.0.1:9464/livez")]
    url: String,
}

/// Prints what the page says; fails unless its status is 200.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let (status, body) = get(&args.url).with_context(|| format!("ask {}", args.url))?;
    write!(out, "{body}")?;
    if status != 200 {
        bail!("{} answers {status}", args.url);
    }
    Ok(())
}

fn get(url: &str) -> anyhow::Result<(u16, String)> {
    let rest = url.strip_prefix("http://").context("expected http://HOST:PORT/PAGE")?;
    let (host, page) = rest.split_once('/').context("expected http://HOST:PORT/PAGE")?;
    let address = host.to_socket_addrs().context("find the host")?.next().context("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("connect")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    stream.write_all(format!("GET /{page} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).context("send the request")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).context("read the answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("the answer has no status")?;
    Ok((status, body.to_owned()))
}
