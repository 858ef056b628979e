//! HTTPS, with a certificate that may be renewed while the process runs.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// A certificate with those of the authorities between, and its key: PEM files.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Loaded>,
}

struct Loaded {
    acceptor: SslAcceptor,
    /// When the files were last written, as they were looked at.
    written: [Option<SystemTime>; 2],
}

impl Tls {
    /// # Errors
    /// A file is missing or holds no such thing, or the two do not belong together.
    pub fn new(certificate: &Path, key: &Path) -> Result<Tls, String> {
        let loaded = load(certificate, key)?;
        Ok(Tls { certificate: certificate.to_owned(), key: key.to_owned(), current: Mutex::new(loaded) })
    }

    /// Begins a connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<SslStream<TcpStream>, String> {
        let ssl = self.session().map_err(|error| error.to_string())?;
        let mut stream = SslStream::new(ssl, stream).map_err(|error| error.to_string())?;
        Pin::new(&mut stream).accept().await.map_err(|error| error.to_string())?;
        Ok(stream)
    }

    /// With the files as they are now, or were when they were last sound.
    fn session(&self) -> Result<Ssl, ErrorStack> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let written = written(&self.certificate, &self.key);
        if written != current.written {
            match load(&self.certificate, &self.key) {
                Ok(loaded) => {
                    *current = loaded;
                    tracing::info!("the renewed certificate of http.certificate_file is in use");
                }
                Err(error) => {
                    current.written = written;
                    tracing::warn!(error, "the certificate changed and cannot be used, the one before it stays in use");
                }
            }
        }
        Ssl::new(current.acceptor.context())
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Loaded, String> {
    // Before reading: what is written meanwhile is read again.
    let written = written(certificate, key);
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).map_err(|error| error.to_string())?;
    let of = |key: &str, file: &Path| {
        let told = format!("read http.{key} {}", file.display());
        move |error: ErrorStack| {
            format!("{told}: {}", error.errors().first().map_or("no PEM in it".to_owned(), ToString::to_string))
        }
    };
    tls.set_certificate_chain_file(certificate).map_err(of("certificate_file", certificate))?;
    tls.set_private_key_file(key, SslFiletype::PEM).map_err(of("key_file", key))?;
    tls.check_private_key().map_err(of("key_file", key))?;
    Ok(Loaded { acceptor: tls.build(), written })
}

fn written(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificate, key].map(|file| std::fs::metadata(file).and_then(|about| about.modified()).ok())
}
