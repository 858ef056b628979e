//! Encrypted connections, and who is who: the daemon against a real broker with certificates made here. What is wrong is named, and no secret is.

use std::path::PathBuf;

use crate::plant::{self, MACHINES};
use crate::setting::{LONG, TRAINING_STEPS};
use crate::support::authority::{Authority, write};
use crate::support::login::{Issuing, Provider};
use crate::support::rights::Operation::{Read, Write};
use crate::support::rights::Resource::{Group, Topic, TransactionalId};
use crate::support::rights::{PASSWORD, USER};
use crate::support::{self, PATIENCE, residua, wait_for};

#[test]
fn tls_mutual_tls_plain_scram_and_oauthbearer_work_and_what_is_wrong_with_them_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let (broker, key) = ours.issue("broker", &["127.0.0.1"]);
    let ca = write(dir.path(), "ca.pem", &ours.pem);
    write(dir.path(), "broker.pem", &format!("{key}{broker}"));
    let stranger = write(dir.path(), "stranger.pem", &Authority::new().pem);
    let (certificate, key) = ours.issue(USER, &[]);
    let (certificate, key) = (write(dir.path(), "client.pem", &certificate), write(dir.path(), "client.key", &key));
    let password = write(dir.path(), "password", PASSWORD);

    // A token is good for less than the test takes.
    let issuing = Issuing::new(USER, PASSWORD, "residua-kafka", 8);
    write(dir.path(), "jwks.json", &issuing.key_set());
    let (certificate_of_provider, key_of_provider) = ours.issue("provider", &["127.0.0.1"]);
    let provider = Provider::start(
        &write(dir.path(), "provider.pem", &certificate_of_provider),
        &write(dir.path(), "provider.key", &key_of_provider),
        issuing,
    );

    let secure = dir.path().to_str().unwrap();
    let Some(cluster) = support::cluster_with(&dir.path().join("kafka"), 1, &["--secure", secure]) else { return };
    let topic = support::topic("secure");
    let group = format!("residua-{topic}");
    let open = format!("[kafka]\nbrokers = \"{}\"\ninput = \"{topic}\"\n", cluster.broker.bootstrap);
    let made = residua(&["check", "--connect", "--create-topics", "--partitions", "2"], &open).wait(PATIENCE);
    assert!(made.status.success(), "{made:?}");
    for name in [topic.clone(), format!("{topic}.*"), format!("{group}*")] {
        cluster.broker.allow(Read, Topic, &name);
        cluster.broker.allow(Write, Topic, &name);
    }
    cluster.broker.allow(Read, Group, &group);
    cluster.broker.allow(Write, TransactionalId, &format!("{group}*"));

    let config = |port: &str, client: &[(&str, &str)]| {
        let lines: String = client.iter().map(|(key, value)| format!("\"{key}\" = \"{value}\"\n")).collect();
        format!(
            "[kafka]\nbrokers = \"{}\"\ninput = \"{topic}\"\nrequest_timeout = \"5s\"\n[kafka.client]\n{lines}\
             [http]\nlisten = \"127.0.0.1:0\"\n[learning]\nmin_records = {}\n",
            cluster.address_of(port),
            TRAINING_STEPS * MACHINES,
        )
    };
    let path = |p: &PathBuf| p.to_str().unwrap().to_owned();
    let (ca, stranger, certificate, key, password) =
        (path(&ca), path(&stranger), path(&certificate), path(&key), path(&password));
    let login = |mechanism: &'static str| {
        [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &ca),
            ("sasl.mechanism", mechanism),
            ("sasl.username", USER),
            ("sasl.password_file", &password),
        ]
    };
    let token = [
        ("security.protocol", "SASL_SSL"),
        ("ssl.ca.location", ca.as_str()),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.client.id", USER),
        ("sasl.oauthbearer.client.secret_file", &password),
        ("sasl.oauthbearer.token.endpoint.url", &provider.token_endpoint),
        ("sasl.oauthbearer.scope", "kafka"),
        ("https.ca.location", &ca),
    ];
    let mutual = [
        ("security.protocol", "SSL"),
        ("ssl.ca.location", ca.as_str()),
        ("ssl.certificate.location", &certificate),
        ("ssl.key.location", &key),
    ];
    for (what, config) in [
        ("PLAIN", config("login-tls-port", &login("PLAIN"))),
        ("SCRAM", config("login-tls-port", &login("SCRAM-SHA-512"))),
        ("mutual TLS", config("tls-port", &mutual)),
        ("OAUTHBEARER", config("login-tls-port", &token)),
    ] {
        let checked = residua(&["check", "--connect"], &config).wait(PATIENCE);
        assert!(checked.status.success(), "{what}: {checked:?}");
        assert!(!format!("{checked:?}").contains(PASSWORD), "{what}: {checked:?}");
    }

    // What it says, and that it ends soon, by its exit code: trying again does not help.
    let refused = |what: &str, config: String, says: &str| {
        for command in [&["check", "--connect"][..], &["run"]] {
            let ended = residua(command, &config).wait(PATIENCE);
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(said.to_lowercase().contains(says), "{what}: {ended:?}");
            // Who looks at the end of the log sees why.
            let last = ended.stderr.lines().last().unwrap_or_default().to_lowercase();
            assert!(command[0] != "run" || last.contains("residua: ") && last.contains(says), "{what}: {ended:?}");
            assert!(!said.contains(PASSWORD) && !said.contains("not the password"), "{what}: {said}");
            assert!(matches!(ended.status.code(), Some(69 | 78)), "{what}: {ended:?}");
        }
    };
    let mut wrong = login("SCRAM-SHA-512");
    let other = path(&write(dir.path(), "wrong", "not the password"));
    wrong[4].1 = &other;
    refused("a wrong password", config("login-tls-port", &wrong), "authentication");
    let mut foreign = login("SCRAM-SHA-512");
    foreign[1].1 = &stranger;
    refused("a broker of another authority", config("login-tls-port", &foreign), "certificate verify failed");
    let mut nobody = token;
    nobody[5].1 = &other;
    refused("a secret that the provider does not know", config("login-tls-port", &nobody), "401");
    let mut other_provider = token;
    other_provider[8].1 = &stranger;
    refused("a provider of another authority", config("login-tls-port", &other_provider), "certificate");
    refused("no certificate of its own", config("tls-port", &mutual[..2]), "certificate");
    // Who does not encrypt is not answered: there is no more to be said.
    refused("no encryption", config("tls-port", &[]), "reach kafka at");

    // And all of it at work: with a password, and with tokens that do not live as long as it does.
    for (round, client) in [(0, &login("SCRAM-SHA-512")[..]), (1, &token)] {
        let from = TRAINING_STEPS + 100 * round;
        if round == 0 {
            cluster.broker.produce(&topic, plant::records(1, 0..TRAINING_STEPS, &[]));
        }
        let process = residua(&["run"], &config("login-tls-port", client));
        process.wait_for_line("partitions assigned", LONG);
        let tokens = provider.asked().len();
        if round == 1 {
            wait_for("tokens to be renewed", LONG, || (provider.asked().len() >= tokens + 3).then_some(()));
        }
        let fault = plant::Fault { machine: 1, sensor: 2, from: from + 20, to: from + 30, size: 3.0 };
        cluster.broker.produce(&topic, plant::records(2, from..from + 60, &[fault]));
        let alerts = cluster.broker.read_until(&format!("{topic}.anomalies"), LONG, |m| m.len() >= 5 * (1 + round));
        assert!(alerts.iter().all(|m| m.key.as_deref() == Some(plant::name(1).as_bytes())), "{alerts:?}");
        let ended = process.stop();
        assert!(ended.status.success() && !ended.stderr.contains(PASSWORD), "{ended:?}");
    }
    assert!(
        provider
            .asked()
            .iter()
            .all(|form| form.contains("grant_type=client_credentials") && form.contains("scope=kafka"))
    );
}
