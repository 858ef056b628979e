//! `residua probe`: asks a page of a running residua, for health checks where there is no shell and no curl.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::web::{Client, Login, Trust};

/// Longest wait for an answer: shorter than whoever runs a health check waits, so that it is said why.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub struct Args {
    /// Page; without one, /livez where RESIDUA__HTTP__LISTEN says, or at the default address
    url: Option<String>,
    /// Certificates of the authorities to trust, PEM; without, those of the system. This machine itself is trusted anyhow
    #[arg(long, value_name = "FILE", default_value = "")]
    ca_file: String,
}

/// Where residua listens that has these variables for `http.listen` and `http.certificate_file`; none: nowhere.
fn usual(listen: Option<&str>, certificate: Option<&str>) -> Option<String> {
    let scheme = if certificate.is_some_and(|file| !file.is_empty()) { "https" } else { "http" };
    match listen {
        Some("") => None,
        // Every address is this machine's own too.
        Some(listen) => {
            Some(format!("{scheme}://{}/livez", listen.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")))
        }
        None => Some(format!("{scheme}://127.0.0.1:9464/livez")),
    }
}

/// Whether an address is this machine's own, whose certificate is for the name by which others know it.
fn is_own(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["127.0.0.1", "[::1]", "localhost"]
        .iter()
        .any(|own| host.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/'])))
}

/// Prints what the page says; fails unless its status is 200.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let (listen, certificate) = (variable("RESIDUA__HTTP__LISTEN"), variable("RESIDUA__HTTP__CERTIFICATE_FILE"));
    let Some(url) = args.url.clone().or_else(|| usual(listen.as_deref(), certificate.as_deref())) else {
        writeln!(out, "RESIDUA__HTTP__LISTEN is empty: nobody to ask")?;
        return Ok(());
    };
    let trust = if is_own(&url) { Trust::Anyone } else { Trust::Authorities(&args.ca_file) };
    let client = Client::new(&trust, &Login::Nobody).map_err(anyhow::Error::msg).context("read --ca-file")?;
    let (status, body) =
        client.get(&url, "*/*", TIMEOUT).map_err(anyhow::Error::msg).with_context(|| format!("ask {url}"))?;
    write!(out, "{}", String::from_utf8_lossy(&body))?;
    if !status.is_success() {
        bail!("{url} answers {}", status.as_u16());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{is_own, usual};

    #[test]
    fn it_asks_where_residua_listens() {
        for (listen, url) in [
            (None, Some("http://127.0.0.1:9464/livez")),
            (Some("0.0.0.0:9000"), Some("http://127.0.0.1:9000/livez")),
            (Some("[::]:9000"), Some("http://[::1]:9000/livez")),
            (Some("10.0.0.7:9464"), Some("http://10.0.0.7:9464/livez")),
            (Some(""), None),
        ] {
            assert_eq!(usual(listen, Some("")).as_deref(), url, "{listen:?}");
        }
        assert_eq!(usual(None, Some("/cert.pem")).as_deref(), Some("https://127.0.0.1:9464/livez"));
        assert!(is_own("https://[::1]:9464/livez") && is_own("http://localhost/"));
        assert!(!is_own("https://127.0.0.1.example.com/livez") && !is_own("https://residua:9464/"));
    }
}
