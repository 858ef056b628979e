//! HTTP for probes, Prometheus and people: `/metrics`, `/livez`, `/readyz`, `/status`, and a live page at `/` that `/events` feeds. Plain GET, bounded headers,
//! time and connections.

mod settings;
mod tls;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

pub use settings::HttpSettings;
pub use tls::Tls;

/// Connections served at once. One more takes the place of the oldest, so that however many are slow or idle, who comes is answered.
const CONNECTIONS_MAX: usize = 64;
/// Time for a client to send its request headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection, so that idle ones give their place back.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of request headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Answer to a probe: fine, or the reasons why not.
pub type Probe = Result<(), Vec<String>>;

/// What the pages show; asked at each request.
pub trait Pages: Send + Sync + 'static {
    /// Content type and body of `/metrics`.
    fn metrics(&self) -> (&'static str, Vec<u8>);
    fn live(&self) -> Probe;
    fn ready(&self) -> Probe;
    /// A JSON document.
    fn status(&self) -> Vec<u8>;
    /// A JSON document in one line, for the live page.
    fn event(&self) -> Vec<u8>;
    /// Somebody looks at the live page, as long as what is returned lives.
    fn watch(&self) -> Box<dyn Send>;
}

/// The live page; it needs nothing else.
const PAGE: &str = include_str!("page.html");
/// What it may do: nothing is loaded from elsewhere.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Between two events of one viewer.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// Of an answer: whole, or as it comes.
type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// Binds the address; port 0 takes a free one.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Who may see `/metrics`, `/status` and `/events`: everybody, or who knows the token. The probes answer to everybody, and say less.
#[derive(Clone, Default)]
pub struct Access {
    token: Option<Arc<str>>,
    page: bool,
}

impl Access {
    /// With `Authorization: Bearer TOKEN`; an empty one is none.
    pub fn token(token: &str) -> Access {
        Access { token: (!token.is_empty()).then(|| token.into()), page: true }
    }

    /// Whether there is a live page.
    pub fn with_page(self, page: bool) -> Access {
        Access { page, ..self }
    }

    fn allows<B>(&self, request: &Request<B>) -> bool {
        let Some(token) = &self.token else { return true };
        let given = request.headers().get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| same(given, token.as_bytes()))
    }
}

/// In a time that does not tell how far they agree.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

/// Serves until dropped; encrypted, where there is a certificate.
pub async fn serve(listener: TcpListener, pages: Arc<dyn Pages>, access: Access, tls: Option<Tls>) {
    let tls = tls.map(Arc::new);
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or a client that left at once: neither is a reason to stop serving.
                tracing::debug!(%error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= CONNECTIONS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let (pages, access, tls) = (Arc::clone(&pages), access.clone(), tls.clone());
        let connection = tokio::spawn(tokio::time::timeout(CONNECTION_TIMEOUT, async move {
            let Some(tls) = tls else { return converse(stream, pages, access).await };
            match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, pages, access).await,
                Ok(Err(error)) => tracing::debug!(error, "begin an encrypted connection"),
                Err(_) => {}
            }
        }));
        connections.push_back(connection.abort_handle());
    }
}

/// Answers what comes over one connection.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, pages: Arc<dyn Pages>, access: Access) {
    let service = service_fn(move |request| {
        let (pages, access) = (Arc::clone(&pages), access.clone());
        async move { Ok::<_, Infallible>(answer(&request, &pages, &access)) }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(request: &Request<Incoming>, pages: &Arc<dyn Pages>, access: &Access) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", b"only GET and HEAD\n".to_vec());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let path = request.uri().path();
    if matches!(path, "/metrics" | "/status" | "/events") && !access.allows(request) {
        let mut refused = respond(
            StatusCode::UNAUTHORIZED,
            "text/plain",
            b"expected Authorization: Bearer, with the token of http.token_file\n".to_vec(),
        );
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return refused;
    }
    match path {
        "/metrics" => {
            let (content_type, body) = pages.metrics();
            respond(StatusCode::OK, content_type, body)
        }
        "/livez" => probe(pages.live()),
        "/readyz" => probe(pages.ready()),
        "/status" => respond(StatusCode::OK, "application/json", pages.status()),
        "/" if !access.page => {
            respond(StatusCode::OK, "text/plain", b"residua: /metrics /livez /readyz /status\n".to_vec())
        }
        "/" => {
            let mut page = respond(StatusCode::OK, "text/html; charset=utf-8", PAGE.as_bytes().to_vec());
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
            page
        }
        "/events" if access.page => events(Arc::clone(pages)),
        _ => respond(
            StatusCode::NOT_FOUND,
            "text/plain",
            b"not found; there are / /events /metrics /livez /readyz /status\n".to_vec(),
        ),
    }
}

/// One event after the other (server-sent events of HTML, section 9.2), until the viewer leaves or its connection has lasted as long as any may; then it comes
/// again.
fn events(pages: Arc<dyn Pages>) -> Response<Body> {
    let (mut sender, body) = Channel::new(1);
    tokio::spawn(async move {
        let _watching = pages.watch();
        loop {
            let event = [b"data: ".as_slice(), &pages.event(), b"\n\n"].concat();
            if sender.send_data(event.into()).await.is_err() {
                break;
            }
            tokio::time::sleep(EVENT_INTERVAL).await;
        }
    });
    let mut response = Response::new(Either::Right(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn probe(result: Probe) -> Response<Body> {
    match result {
        Ok(()) => respond(StatusCode::OK, "text/plain", b"ok\n".to_vec()),
        Err(reasons) => {
            respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", (reasons.join("\n") + "\n").into_bytes())
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
