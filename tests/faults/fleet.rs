//! The instances under test: three of them, as a user starts them, with two workers each.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Process, residua};

/// Longest time from SIGTERM to the end that is promised.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

pub struct Fleet {
    config: String,
    instances: Vec<Instance>,
    started: usize,
    /// Largest memory of an instance that was looked at, MiB.
    pub memory_mib: u64,
}

struct Instance {
    name: String,
    process: Process,
}

impl Fleet {
    /// `config`: with `INSTANCE` where the name of an instance goes.
    pub fn start(config: &str, size: usize) -> Fleet {
        let mut fleet = Fleet { config: config.to_owned(), instances: Vec::new(), started: 0, memory_mib: 0 };
        (0..size).for_each(|_| fleet.join());
        fleet
    }

    pub fn size(&self) -> usize {
        self.instances.len()
    }

    /// Waits until every instance is a member of the group: one that is still starting is no fair victim.
    pub fn await_members(&self) {
        for instance in &self.instances {
            instance.process.wait_for_line("partitions assigned", PATIENCE);
        }
    }

    /// One more instance, with a name of its own.
    pub fn join(&mut self) {
        let name = format!("i{}", self.started);
        self.started += 1;
        let process = self.run(&name);
        self.instances.push(Instance { name, process });
    }

    /// kill -9; the instance is gone until `revive`.
    pub fn kill(&mut self, which: usize) -> String {
        let at = which % self.instances.len();
        let Instance { name, process } = self.instances.remove(at);
        process.signal("KILL");
        name
    }

    /// A new process of this name.
    pub fn revive(&mut self, name: String) {
        let process = self.run(&name);
        self.instances.push(Instance { name, process });
    }

    /// SIGTERM; the instance must end by itself, in time and with code 0.
    pub fn leave(&mut self, which: usize) {
        let at = which % self.instances.len();
        end(self.instances.remove(at).process);
    }

    /// As `leave`, and a new process of the same name.
    pub fn restart(&mut self, which: usize) {
        let at = which % self.instances.len();
        let name = self.instances[at].name.clone();
        self.leave(at);
        self.revive(name);
    }

    /// SIGSTOP, some time, SIGCONT.
    pub fn pause(&mut self, which: usize, time: Duration) {
        let at = which % self.instances.len();
        self.instances[at].process.signal("STOP");
        std::thread::sleep(time);
        self.instances[at].process.signal("CONT");
    }

    /// Looks at the memory of every instance; an instance that has ended has failed.
    pub fn look(&mut self) {
        for Instance { name, process } in &self.instances {
            let kib = resident_kib(process.id());
            assert!(kib > 0, "instance {name} has ended:\n{}", process.stderr());
            self.memory_mib = self.memory_mib.max(kib / 1024);
        }
    }

    /// All leave.
    pub fn end(mut self) -> u64 {
        self.look();
        for instance in self.instances.drain(..) {
            end(instance.process);
        }
        self.memory_mib
    }

    fn run(&self, name: &str) -> Process {
        residua(&["run"], &self.config.replace("INSTANCE", name))
    }
}

/// Memory of a process that is resident, KiB; 0 if there is no such process.
pub fn resident_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Ends an instance in good order, and shows what it said if that is wanted (`RESIDUA_FAULTS_LOG=1`).
#[track_caller]
fn end(process: Process) {
    let asked = Instant::now();
    process.signal("TERM");
    let ended = process.wait(DRAIN_MAX * 3);
    let took = asked.elapsed();
    if std::env::var_os("RESIDUA_FAULTS_LOG").is_some() {
        eprintln!("{}", ended.stderr);
    }
    assert!(
        ended.status.success() && took <= DRAIN_MAX,
        "SIGTERM: {:?} after {took:?}\n{}",
        ended.status,
        ended.stderr
    );
}
