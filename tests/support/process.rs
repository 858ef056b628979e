//! A program under test: its output is captured, every wait has a deadline, and it does not outlive the test.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::wait_for;

/// Starts `residua ARGS... --config FILE` with this configuration (TOML) in a folder of its own, and nothing of the
/// caller's `RESIDUA__...` environment.
#[track_caller]
pub fn residua(args: &[&str], config: &str) -> Process {
    let dir = tempfile::tempdir().expect("create a folder");
    let file = dir.path().join("residua.toml");
    std::fs::write(&file, config).expect("write the configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
    command.args(args).arg("--config").arg(&file).current_dir(dir.path());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RESIDUA__")) {
        command.env_remove(name);
    }
    let mut process = Process::spawn(command);
    process.dir = Some(dir);
    process
}

/// A running program. Killed when dropped.
pub struct Process {
    child: Child,
    output: Arc<Output>,
    /// Where its configuration is; removed with it.
    dir: Option<TempDir>,
}

/// How a program ended, and all it wrote.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Default)]
struct Output {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    stdout: String,
    stderr: String,
    /// Of the two streams, how many have ended.
    ended: u32,
}

impl Process {
    /// Starts a program without standard input and captures what it writes.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the program");
        let output = Arc::new(Output::default());
        capture(child.stdout.take().expect("its standard output"), &output, |written| &mut written.stdout);
        capture(child.stderr.take().expect("its standard error"), &output, |written| &mut written.stderr);
        Process { child, output, dir: None }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes another configuration to its file; that of [`residua`].
    pub fn configure(&self, config: &str) {
        let file = self.dir.as_ref().expect("a folder of its own").path().join("residua.toml");
        std::fs::write(file, config).expect("write the configuration");
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.written().stdout.clone()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.written().stderr.clone()
    }

    /// Waits for a line, of either stream, that contains `text`, and returns the first.
    ///
    /// # Panics
    /// After `within`, or when the program has ended without it, with all that was written.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str, within: Duration) -> String {
        let find = |written: &Written| {
            let mut lines = written.stdout.lines().chain(written.stderr.lines());
            lines.find(|line| line.contains(text)).map(str::to_owned)
        };
        let written = self.wait_while(within, |written| find(written).is_none() && written.ended < 2);
        find(&written).unwrap_or_else(|| panic!("no line with {text:?} within {within:?}{}", quote(&written)))
    }

    /// Sends a signal: "TERM", "INT", "KILL".
    #[track_caller]
    pub fn signal(&self, name: &str) {
        // Not yet waited for, so the id cannot belong to anybody else.
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().expect("run kill");
        assert!(status.success(), "cannot send SIG{name}");
    }

    /// Asks it to end, and waits until it has ended well.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal("TERM");
        let ended = self.wait(Duration::from_secs(20));
        assert!(ended.status.success(), "{ended:?}");
        ended
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// After `within`, with all that was written.
    #[track_caller]
    pub fn wait(mut self, within: Duration) -> Finished {
        let deadline = Instant::now() + within;
        let written = self.wait_while(within, |written| written.ended < 2);
        assert!(written.ended == 2, "the program still runs after {within:?}{}", quote(&written));
        let (stdout, stderr) = (written.stdout.clone(), written.stderr.clone());
        drop(written);
        // Its output has ended, so it is ending; a moment is left for that.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let status = wait_for("the end of the program", left, || self.child.try_wait().expect("wait for the program"));
        Finished { status, stdout, stderr }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.output.written.lock().expect("a sound lock")
    }

    fn wait_while(&self, within: Duration, condition: impl Fn(&Written) -> bool) -> MutexGuard<'_, Written> {
        let waited = self.output.changed.wait_timeout_while(self.written(), within, |written| condition(written));
        waited.expect("a sound lock").0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            // Seen only where the test fails: what the program had to say about it.
            println!("{}", quote(&self.output.written.lock().unwrap_or_else(PoisonError::into_inner)));
        }
    }
}

fn capture(stream: impl Read + Send + 'static, output: &Arc<Output>, of: fn(&mut Written) -> &mut String) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            of(&mut output.written.lock().expect("a sound lock")).push_str(&String::from_utf8_lossy(&line));
            output.changed.notify_all();
            line.clear();
        }
        output.written.lock().expect("a sound lock").ended += 1;
        output.changed.notify_all();
    });
}

fn quote(written: &Written) -> String {
    let mut text = String::new();
    for (name, content) in [("stdout", &written.stdout), ("stderr", &written.stderr)] {
        let _ = write!(text, "\n--- {name}\n{content}");
    }
    text
}
