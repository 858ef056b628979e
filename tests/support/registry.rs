//! A schema registry of this test run: answers GET as Confluent's documentation of its HTTP interface says, from what it was given.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};

#[derive(Clone, Copy, PartialEq)]
pub enum Mood {
    Answers,
    /// Takes connections and ends them.
    Refuses,
    /// Takes connections and says nothing.
    Silent,
    /// As a proxy before it does.
    Error502,
}

struct State {
    pages: HashMap<String, String>,
    mood: Mood,
    /// Requests with the credentials that were sent.
    asked: Vec<(String, String)>,
}

pub struct Registry {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Registry {
    pub fn start() -> Registry {
        Registry::with(None)
    }

    /// With a certificate and its key, PEM files.
    pub fn secure(certificate: &str, key: &str) -> Registry {
        let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        tls.set_certificate_file(certificate, SslFiletype::PEM).unwrap();
        tls.set_private_key_file(key, SslFiletype::PEM).unwrap();
        Registry::with(Some(tls.build()))
    }

    fn with(tls: Option<SslAcceptor>) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = State { pages: HashMap::new(), mood: Mood::Answers, asked: vec![] };
        let state = Arc::new(Mutex::new(state));
        let of_thread = Arc::clone(&state);
        // Ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (Arc::clone(&of_thread), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &state),
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream) {
                            serve(stream, &state);
                        }
                    }
                });
            }
        });
        Registry { url, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn put(&self, page: &str, answer: &str) {
        self.state().pages.insert(page.to_owned(), answer.to_owned());
    }

    pub fn forget(&self, id: u32) {
        self.state().pages.remove(&format!("/schemas/ids/{id}"));
    }

    /// A schema without references.
    pub fn schema(&self, id: u32, schema: &str) {
        self.put(&format!("/schemas/ids/{id}"), &serde_json::json!({ "schema": schema }).to_string());
    }

    pub fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Pages that were asked for, with the `Authorization` that was sent.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.state().asked.clone()
    }
}

fn serve(stream: impl Read + Write, state: &Mutex<State>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut request, mut line) = (vec![], String::new());
        while stream.read_line(&mut line).is_ok_and(|n| n > 0) && line != "\r\n" {
            request.push(std::mem::take(&mut line));
        }
        let Some(page) = request.first().and_then(|first| first.split(' ').nth(1)) else { return };
        let authorization = request.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_owned())
        });
        let mood = {
            let mut state = state.lock().unwrap();
            state.asked.push((page.to_owned(), authorization.unwrap_or_default()));
            state.mood
        };
        let found = state.lock().unwrap().pages.get(page).cloned();
        let (status, body) = match (mood, found) {
            (Mood::Refuses, _) => return,
            (Mood::Silent, _) => return std::thread::sleep(Duration::from_secs(60)),
            (Mood::Error502, _) => ("502 Bad Gateway", "<html>".to_owned()),
            (Mood::Answers, Some(body)) => ("200 OK", body),
            (Mood::Answers, None) => {
                ("404 Not Found", r#"{"error_code":40403,"message":"Schema not found"}"#.to_owned())
            }
        };
        let kind = "application/vnd.schemaregistry.v1+json";
        let answer =
            format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
