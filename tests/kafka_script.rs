//! Goal: `deploy/dev/kafka` gives what it says, and leaves nothing behind, however its users end.
//! Method: run it on folders of its own and look at what /proc has. A process belongs to a cluster if its command line
//! has the cluster's folder.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use support::{KAFKA_SCRIPT, Outgoing, PATIENCE, Process, topic, wait_for};

#[test]
fn one_broker_starts_once_for_all_who_ask_and_is_gone_after_stop() {
    let folder = tempfile::tempdir().expect("create a folder");
    let dir = folder.path().join("cluster");
    let Some(cluster) = support::cluster(&dir, 1) else {
        return;
    };
    let asked: Vec<String> = thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| cluster.control(&["start"]))).collect();
        both.into_iter().map(|start| start.join().expect("a start")).collect()
    });
    assert_eq!(asked, [format!("{}\n", cluster.broker.bootstrap), format!("{}\n", cluster.broker.bootstrap)]);
    assert_eq!(brokers_of(&dir), 1);
    assert!(cluster.control(&["status"]).contains("broker 1 127.0.0.1:"));

    cluster.stop();

    assert_nothing_left(&dir);
    cluster.stop(); // nothing to do is no error
}

#[test]
fn three_brokers_survive_the_loss_of_one_and_are_gone_after_stop() {
    let folder = tempfile::tempdir().expect("create a folder");
    let dir = folder.path().join("cluster");
    let Some(cluster) = support::cluster(&dir, 3) else {
        return;
    };
    assert_eq!(cluster.broker.bootstrap.split(',').count(), 3);
    let name = topic("copies");
    cluster.broker.create_topic(&name, 3, &[]);
    let write = |value: &str| {
        let each = (0..3).map(|partition| Outgoing { partition: Some(partition), ..Outgoing::new("k", value) });
        cluster.broker.produce(&name, each);
    };
    write("before");
    cluster.control(&["kill", "2"]);
    assert_eq!(brokers_of(&dir), 2);
    write("with two of three");
    cluster.control(&["start-broker", "2"]);
    cluster.control(&["stop-broker", "3"]);
    write("with another two");
    assert_eq!(cluster.broker.read(&name).len(), 9);
    assert_eq!(cluster.control(&["status"]).matches(" running ").count(), 2);

    cluster.control(&["kill", "1"]); // `stop` must not depend on what still runs
    cluster.stop();

    assert_nothing_left(&dir);
}

#[test]
fn a_cluster_ends_soon_after_its_last_user_was_killed() {
    let folder = tempfile::tempdir().expect("create a folder");
    let dir = folder.path().join("cluster");
    let mut users: Vec<_> = (0..2).map(|_| Command::new("sleep").arg("600").spawn().expect("run sleep")).collect();
    let starts: Vec<_> = users.iter().map(|user| start(&dir, user.id())).collect();
    let stopped = starts.iter().all(Option::is_some).then(|| {
        users[0].kill().expect("kill the first user");
        users[0].wait().expect("its end");
        // The cluster must outlast the time in which it would end, had it no user left.
        thread::sleep(Duration::from_secs(6));
        let kept = brokers_of(&dir);
        users[1].kill().expect("kill the second user");
        users[1].wait().expect("its end");
        wait_for("the end of the cluster", PATIENCE, || (!dir.exists()).then_some(()));
        kept
    });
    for mut user in users {
        let _ = user.kill();
        let _ = user.wait();
    }
    let Some(kept) = stopped else { return };
    assert_eq!(starts[0], starts[1]);
    assert_eq!(kept, 1, "the second user still needed it");
    assert_nothing_left(&dir);
}

#[test]
fn a_machine_without_java_and_docker_is_told_so() {
    let folder = tempfile::tempdir().expect("create a folder");
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).expect("create a folder");
    for tool in ["bash", "dirname", "readlink", "cat", "sed", "head", "timeout", "mkdir", "flock", "rm", "ls", "grep"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().expect("run sh");
        let path = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        std::os::unix::fs::symlink(path, bin.join(tool)).expect("link a tool");
    }
    let mut start = Command::new(KAFKA_SCRIPT);
    start.arg("start").arg("--dir").arg(folder.path().join("cluster")).env("PATH", &bin).env_remove("DEV_KAFKA_ENGINE");
    let output = start.output().expect("run the script");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.lines().count() == 1 && said.contains("neither Docker nor Java is here"), "{said}");
    assert!(!folder.path().join("cluster.lock").exists());
}

/// A daemon that answers, has the image, and then fails at everything.
#[test]
fn where_docker_fails_java_is_tried() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("create a folder");
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).expect("create a folder");
    fs::write(bin.join("docker"), "#!/bin/sh\ncase $1 in info | image) exit 0 ;; *) exit 1 ;; esac\n").expect("write");
    fs::set_permissions(bin.join("docker"), fs::Permissions::from_mode(0o755)).expect("make it a program");
    let dir = folder.path().join("kafka/cluster");
    let run = |command: &str| {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
        let mut script = Command::new(KAFKA_SCRIPT);
        script.args([command, "--dir"]).arg(&dir).env("PATH", path).env_remove("DEV_KAFKA_ENGINE");
        script.output().expect("run the script")
    };
    let started = run("start");
    if started.status.code() == Some(3) && support::kafka().is_none() {
        return;
    }
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(started.status.success() && said.contains("Docker could not, trying Java"), "{said}");
    assert!(String::from_utf8_lossy(&run("status").stdout).contains("running (java,"));
    assert!(run("stop").status.success());
    assert_nothing_left(&dir);
}

#[test]
fn a_folder_with_other_files_is_refused() {
    let folder = tempfile::tempdir().expect("create a folder");
    fs::write(folder.path().join("thesis.txt"), "text").expect("write a file");
    for command in ["start", "stop"] {
        Command::new(KAFKA_SCRIPT).args([command, "--dir"]).arg(folder.path()).output().expect("run the script");
        assert!(folder.path().join("thesis.txt").exists(), "{command} must not touch it");
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
    }
}

/// Starts a cluster for a process and gives its address; `None` where there can be none. Waits for the end of the
/// output, too, so brokers that held on to a descriptor of their starter would be found: also one that a shell has open.
fn start(dir: &Path, user: u32) -> Option<String> {
    let mut bash = Command::new("bash");
    bash.args(["-c", "exec 5>&1; exec \"$@\"", "-", KAFKA_SCRIPT, "start", "--while", &user.to_string(), "--dir"]);
    bash.arg(dir);
    let finished = Process::spawn(bash).wait(PATIENCE * 3);
    if finished.status.code() == Some(3) && support::kafka().is_none() {
        return None;
    }
    assert!(finished.status.success(), "{}", finished.stderr);
    assert!(finished.stdout.starts_with("127.0.0.1:") && finished.stdout.lines().count() == 1, "{finished:?}");
    Some(finished.stdout)
}

/// Number of live brokers of the cluster in `dir`.
#[track_caller]
fn brokers_of(dir: &Path) -> usize {
    let status = Command::new(KAFKA_SCRIPT).args(["status", "--dir"]).arg(dir).output().expect("run the script");
    let said = String::from_utf8_lossy(&status.stdout).matches(" running ").count();
    // With Docker the brokers are nobody's processes that /proc would name so.
    if fs::read_to_string(dir.join("cluster")).is_ok_and(|text| text.starts_with("java")) {
        let found = processes_with(dir).iter().filter(|line| line.contains("kafka.Kafka")).count();
        assert_eq!(found, said, "processes and status differ");
    }
    said
}

#[track_caller]
fn assert_nothing_left(dir: &Path) {
    let parent = dir.parent().expect("a folder around it");
    // The watcher removes its lock file last; a process that was killed may need a moment to leave the table.
    let moment = Duration::from_secs(5);
    wait_for("an empty folder", moment, || fs::read_dir(parent).ok()?.next().is_none().then_some(()));
    wait_for("the end of all processes", moment, || processes_with(dir).is_empty().then_some(()));
}

/// Command lines of the processes that name this folder.
fn processes_with(dir: &Path) -> Vec<String> {
    let text = dir.to_str().expect("a path in UTF-8");
    let entries = fs::read_dir("/proc").expect("list processes").flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(text)).collect()
}
