//! The least a user of Kafka must be allowed, as `docs/configuration.md` lists it: `check` finds each right that is missing,
//! `run` ends and says which, and with all of them the daemon works.

use std::time::Duration;

use crate::plant;
use crate::setting::address;
use crate::support::rights::Operation::{Read, Write};
use crate::support::rights::Resource::{Group, Topic, TransactionalId};
use crate::support::rights::{PASSWORD, USER};
use crate::support::{self, PATIENCE, http_get, residua, wait_for};

#[test]
fn each_missing_right_is_named_and_no_further_one_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cluster) = support::cluster(&dir.path().join("kafka"), 1) else { return };
    let topic = support::topic("rights");
    let plain = format!("[kafka]\nbrokers = \"{}\"\ninput = \"{topic}\"\n", cluster.broker.bootstrap);
    assert!(
        residua(&["check", "--connect", "--create-topics", "--partitions", "6"], &plain)
            .wait(PATIENCE)
            .status
            .success()
    );

    let secret = dir.path().join("password");
    std::fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    let login = format!(
        "[kafka]\nbrokers = \"{}\"\ninput = \"{topic}\"\nrequest_timeout = \"10s\"\nallow_insecure = true\n[kafka.client]\n\
         \"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"{USER}\"\n\
         \"sasl.password_file\" = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[learning]\nmin_records = 2000\n",
        cluster.login_address(),
        secret.display(),
    );
    let group = format!("residua-{topic}");
    let anomalies = format!("{topic}.anomalies");
    let incidents = format!("{topic}.incidents");
    let dead_letters = format!("{topic}.dead-letters");
    let models = format!("{group}.models");
    let state = format!("{group}.state");
    // Lines of `check` that are wrong as long as the right is missing.
    let transactions = format!("{group}*");
    let steps = [
        (Read, Topic, &topic, format!("input topic `{topic}`")),
        (Write, Topic, &anomalies, format!("anomalies topic `{anomalies}`")),
        (Write, Topic, &incidents, format!("incidents topic `{incidents}`")),
        (Write, Topic, &dead_letters, format!("dead letters topic `{dead_letters}`")),
        (Write, Topic, &models, format!("models topic `{models}`")),
        (Write, Topic, &state, format!("state topic `{state}`")),
        (Read, Topic, &models, format!("read `{models}`")),
        (Read, Topic, &state, format!("read `{state}`")),
        (Write, TransactionalId, &transactions, format!("write `{anomalies}`")),
        (Read, Group, &group, format!("commit as group `{group}`")),
    ];
    for (operation, resource, name, line) in &steps {
        let checked = residua(&["check", "--connect"], &login).wait(PATIENCE);
        let wrong = checked.stdout.lines().find(|l| l.starts_with("WRONG") && l.contains(line.as_str()));
        let wrong = wrong.unwrap_or_else(|| panic!("{line} is not wrong before {operation:?}:\n{checked:?}"));
        assert!(wrong.contains("authorization failed"), "{wrong}");
        assert_eq!(checked.status.code(), Some(78));
        assert!(!checked.stdout.contains(PASSWORD) && !checked.stderr.contains(PASSWORD), "{checked:?}");

        // A daemon that lacks a right says so and ends; trying again would not help.
        let ended = residua(&["run"], &login).wait(PATIENCE);
        assert_eq!(ended.status.code(), Some(78), "{ended:?}");
        assert!(ended.stderr.contains("authorization failed"), "without {operation:?} {resource:?}: {ended:?}");
        cluster.broker.allow(*operation, *resource, name);
    }
    let checked = residua(&["check", "--connect"], &login).wait(PATIENCE);
    assert!(checked.status.success(), "{checked:?}");

    cluster.broker.produce(&topic, plant::records(1, 0..60, &[]));
    let process = residua(&["run"], &login);
    let address = address(&process);
    process.wait_for_line("partitions assigned", Duration::from_secs(240));
    cluster.broker.produce(&topic, plant::records(1, 60..80, &[]));
    wait_for("all records to be committed", PATIENCE, || {
        let committed: i64 = cluster.broker.committed(&group, &topic).into_iter().flatten().sum();
        (committed == 80 * plant::MACHINES as i64).then_some(())
    });
    let status = http_get(&address, "/status").expect("an answer").body;
    assert!(status.contains("sasl.password") && !status.contains(PASSWORD), "{status}");
    let ended = process.stop();
    assert!(ended.status.success() && !ended.stderr.contains(PASSWORD), "{ended:?}");
}
