//! An OpenID provider of this test run: hands out tokens for client credentials (RFC 6749, section 4.4), signed by a key that a broker can be
//! told of (RFC 7517).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::base64::{decode_block, encode_block};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};

pub struct Provider {
    pub token_endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// For a key that the broker knows, whom it takes clients for, and how long it trusts a token.
pub struct Issuing {
    key: PKey<Private>,
    pub client: String,
    pub secret: String,
    pub audience: String,
    pub seconds: u64,
}

fn url_safe(bytes: &[u8]) -> String {
    encode_block(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

impl Issuing {
    pub fn new(client: &str, secret: &str, audience: &str, seconds: u64) -> Issuing {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let [client, secret, audience] = [client, secret, audience].map(str::to_owned);
        Issuing { key, client, secret, audience, seconds }
    }

    /// What a broker must know of the key.
    pub fn key_set(&self) -> String {
        let rsa = self.key.rsa().unwrap();
        let (n, e) = (url_safe(&rsa.n().to_vec()), url_safe(&rsa.e().to_vec()));
        serde_json::json!({"keys": [{"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": n, "e": e}]})
            .to_string()
    }

    fn token(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "1"});
        let claims = serde_json::json!({
            "iss": "https://provider.test", "sub": self.client, "aud": self.audience, "iat": now, "exp": now + self.seconds, "scope": "kafka"
        });
        let text = format!("{}.{}", url_safe(header.to_string().as_bytes()), url_safe(claims.to_string().as_bytes()));
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).unwrap();
        let signature = signer.sign_oneshot_to_vec(text.as_bytes()).unwrap();
        format!("{text}.{}", url_safe(&signature))
    }
}

impl Provider {
    pub fn start(certificate: &Path, key: &Path, issuing: Issuing) -> Provider {
        let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        tls.set_certificate_file(certificate, SslFiletype::PEM).unwrap();
        tls.set_private_key_file(key, SslFiletype::PEM).unwrap();
        let (tls, issuing) = (tls.build(), Arc::new(issuing));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let token_endpoint = format!("https://{}/token", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(vec![]));
        let of_thread = Arc::clone(&asked);
        // Ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, issuing, asked) = (tls.clone(), Arc::clone(&issuing), Arc::clone(&of_thread));
                std::thread::spawn(move || {
                    if let Ok(stream) = tls.accept(stream) {
                        answer(stream, &issuing, &asked);
                    }
                });
            }
        });
        Provider { token_endpoint, asked }
    }

    /// What was sent, one text each: the form.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(stream: impl Read + Write, issuing: &Issuing, asked: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    let (mut length, mut login, mut line) = (0, String::new(), String::new());
    while stream.read_line(&mut line).is_ok_and(|n| n > 0) && line != "\r\n" {
        if let Some((name, value)) = line.trim().split_once(": ") {
            match name.to_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "authorization" => login = value.trim_start_matches("Basic ").to_owned(),
                _ => {}
            }
        }
        line.clear();
    }
    let mut form = vec![0; length];
    if stream.read_exact(&mut form).is_err() {
        return;
    }
    asked.lock().unwrap().push(String::from_utf8_lossy(&form).into_owned());
    let known =
        decode_block(&login).is_ok_and(|login| login == format!("{}:{}", issuing.client, issuing.secret).as_bytes());
    let (status, body) = match known {
        true => (
            "200 OK",
            serde_json::json!({"access_token": issuing.token(), "token_type": "Bearer", "expires_in": issuing.seconds}),
        ),
        false => {
            ("401 Unauthorized", serde_json::json!({"error": "invalid_client", "error_description": "who are you?"}))
        }
    };
    let body = body.to_string();
    let _ = stream.get_mut().write_all(
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
            .as_bytes(),
    );
}
