//! HTTP to others: a client with bounds, whose TLS is that of the Kafka client, so that there is one to keep up to date.

use std::time::Duration;

use ureq::Agent;
pub use ureq::http::{StatusCode, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Of an answer.
const BYTES_MAX: u64 = 4 << 20;

/// Who asks. Others' proxies, by the environment's variables (`HTTPS_PROXY`, `NO_PROXY`), serve [`Trust::Authorities`] alone.
pub struct Client {
    agent: Agent,
    authorization: Option<String>,
}

/// Whose certificates are believed.
pub enum Trust<'a> {
    /// In a PEM file; an empty name stands for the system's.
    Authorities(&'a str),
    /// For this machine itself.
    Anyone,
}

/// Who the client is.
pub enum Login<'a> {
    Nobody,
    /// HTTP's basic authentication.
    User(&'a str, &'a str),
    Bearer(&'a str),
}

type Answer = Result<(StatusCode, Vec<u8>), String>;

impl Client {
    /// # Errors
    /// The file of the authorities cannot be read, or there is none in it.
    pub fn new(trust: &Trust<'_>, login: &Login<'_>) -> Result<Client, String> {
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls);
        let tls = match trust {
            Trust::Authorities(file) => tls.root_certs(roots(file)?),
            Trust::Anyone => tls.disable_verification(true),
        };
        let tls = tls.build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // Where somebody sends it is not where it was told to go.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("residua");
        let agent = if matches!(trust, Trust::Anyone) { agent.proxy(None) } else { agent }.build();
        let authorization = match login {
            Login::Nobody => None,
            Login::Bearer(token) => Some(format!("Bearer {token}")),
            Login::User(user, password) => {
                Some(format!("Basic {}", openssl::base64::encode_block(format!("{user}:{password}").as_bytes())))
            }
        };
        Ok(Client { agent: agent.into(), authorization })
    }

    /// Status and body. An error is that nothing came back, in this time.
    pub fn get(&self, url: &str, accept: &str, within: Duration) -> Answer {
        let mut request = self.agent.get(url).config().timeout_global(Some(within)).build().header("Accept", accept);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        answer(request.call())
    }

    /// The same, for what comes back to a form.
    pub fn post(&self, url: &str, form: &[(&str, &str)], within: Duration) -> Answer {
        let mut request = self.agent.post(url).config().timeout_global(Some(within)).build();
        request = request.header("Accept", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        answer(request.send_form(form.iter().copied()))
    }
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.map_err(|error| error.to_string())?;
    let body = response.body_mut().with_config().limit(BYTES_MAX).read_to_vec();
    Ok((response.status(), body.map_err(|error| error.to_string())?))
}

fn roots(file: &str) -> Result<RootCerts, String> {
    if file.is_empty() {
        return Ok(RootCerts::PlatformVerifier);
    }
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut certificates = vec![];
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            certificates.push(certificate);
        }
    }
    match certificates.as_slice() {
        [] => Err("no certificate in it".to_owned()),
        some => Ok(RootCerts::new_with_certs(some)),
    }
}
