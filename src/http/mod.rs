//! HTTP for probes and Prometheus: `/metrics`, `/livez`, `/readyz`, `/status`. Plain GET, bounded headers, time and connections.

mod settings;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use settings::HttpSettings;

/// Connections served at once; more wait in the listen queue.
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
}

/// Binds the address; port 0 takes a free one.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, pages: Arc<dyn Pages>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or a client that left at once: neither is a reason to stop serving.
                tracing::debug!(%error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let pages = Arc::clone(&pages);
                async move { Ok::<_, Infallible>(answer(&request, pages.as_ref())) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEADER_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, pages: &dyn Pages) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", b"only GET and HEAD\n".to_vec());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let (content_type, body) = pages.metrics();
            respond(StatusCode::OK, content_type, body)
        }
        "/livez" => probe(pages.live()),
        "/readyz" => probe(pages.ready()),
        "/status" => respond(StatusCode::OK, "application/json", pages.status()),
        "/" => respond(StatusCode::OK, "text/plain", b"residua: /metrics /livez /readyz /status\n".to_vec()),
        _ => respond(
            StatusCode::NOT_FOUND,
            "text/plain",
            b"not found; there are /metrics /livez /readyz /status\n".to_vec(),
        ),
    }
}

fn probe(result: Probe) -> Response<Full<Bytes>> {
    match result {
        Ok(()) => respond(StatusCode::OK, "text/plain", b"ok\n".to_vec()),
        Err(reasons) => {
            respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", (reasons.join("\n") + "\n").into_bytes())
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
