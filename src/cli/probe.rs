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
    /// Page; without one, /livez where RESIDUA__HTTP__LISTEN says, or at the default address
    url: Option<String>,
}

/// Where residua listens that has this variable for `http.listen`; none: nowhere.
fn usual(listen: Option<&str>) -> Option<String> {
    match listen {
        Some("") => None,
        // Every address is this machine's own too.
        Some(listen) => {
            Some(format!("http://{}/livez", listen.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")))
        }
        None => Some("http://127.0.0.1:9464/livez".to_owned()),
    }
}

/// Prints what the page says; fails unless its status is 200.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let listen = std::env::var("RESIDUA__HTTP__LISTEN").ok();
    let Some(url) = args.url.clone().or_else(|| usual(listen.as_deref())) else {
        writeln!(out, "RESIDUA__HTTP__LISTEN is empty: nobody to ask")?;
        return Ok(());
    };
    let (status, body) = get(&url).with_context(|| format!("ask {url}"))?;
    write!(out, "{body}")?;
    if status != 200 {
        bail!("{url} answers {status}");
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

#[cfg(test)]
mod tests {
    use super::usual;

    #[test]
    fn it_asks_where_residua_listens() {
        for (listen, url) in [
            (None, Some("http://127.0.0.1:9464/livez")),
            (Some("0.0.0.0:9000"), Some("http://127.0.0.1:9000/livez")),
            (Some("[::]:9000"), Some("http://[::1]:9000/livez")),
            (Some("10.0.0.7:9464"), Some("http://10.0.0.7:9464/livez")),
            (Some(""), None),
        ] {
            assert_eq!(usual(listen).as_deref(), url, "{listen:?}");
        }
    }
}
