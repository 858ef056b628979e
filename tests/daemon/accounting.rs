//! Every input is accounted for exactly once, through SIGTERM, rebalances and kill -9.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::Value;

use crate::broken;
use crate::plant::{self, Fault, MACHINES};
use crate::setting::{LONG, Setting, TRAINING_STEPS, address, ends, line, text};
use crate::support::{self, Message, Outgoing, http_get, metric, wait_for};

/// Ids that stand in scores and dead letters, each with how often.
fn accounted(setting: &Setting<'_>) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for m in setting.scores() {
        *seen.entry(text(&line(&m), "id").to_owned()).or_insert(0) += 1;
    }
    let mut places = HashMap::new();
    for m in setting.dead_letters() {
        let header = |n: &str| {
            String::from_utf8_lossy(m.header(&format!("__connect.errors.{n}")).unwrap_or_default()).into_owned()
        };
        let id = format!("{}-{}-{}", header("topic"), header("partition"), header("offset"));
        let place = (m.partition, m.offset);
        if let Some(before) = places.insert(id.clone(), place) {
            println!("the dead letter of {id} is at {before:?} and at {place:?}");
        }
        *seen.entry(id).or_insert(0) += 1;
    }
    seen
}

#[track_caller]
fn assert_exactly_once(seen: &BTreeMap<String, usize>, expected: &BTreeSet<String>) {
    let lost: Vec<_> = expected.iter().filter(|id| !seen.contains_key(*id)).take(5).collect();
    let repeated: Vec<_> = seen.iter().filter(|(_, n)| **n > 1).take(5).collect();
    let invented: Vec<_> = seen.keys().filter(|id| !expected.contains(*id)).take(5).collect();
    assert!(
        lost.is_empty() && repeated.is_empty() && invented.is_empty(),
        "lost {lost:?} repeated {repeated:?} invented {invented:?}"
    );
    assert_eq!(seen.len(), expected.len());
}

/// Records with the broken messages spread evenly among them.
fn mixed(records: Vec<Outgoing>, broken: Vec<Outgoing>) -> Vec<Outgoing> {
    let every = records.len() / broken.len();
    let mut broken = broken.into_iter();
    let mut out = Vec::with_capacity(records.len() + broken.len());
    for (i, r) in records.into_iter().enumerate() {
        out.push(r);
        if i % every == every - 1 {
            out.extend(broken.next());
        }
    }
    out.extend(broken);
    out
}

#[test]
fn two_hundred_thousand_records_are_accounted_for_exactly_once() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "accounting", "");
    let faults: Vec<Fault> = (0..10)
        .map(|i| Fault { machine: i * 3 + 1, sensor: i % 8, from: 600 + i * 400, to: 640 + i * 400, size: 2.0 })
        .collect();
    let first = setting.start_trained();
    let trained = ends(&broker.read(&setting.topic));

    let steps = TRAINING_STEPS..TRAINING_STEPS + 5_000;
    let messages = mixed(plant::records(2, steps, &faults), broken::messages(1_000));
    assert_eq!(messages.len(), 201_000);
    let half = messages.len() / 2;
    broker.produce(&setting.topic, messages[..half].to_vec());
    // In the middle of the work: stop in good order, start again.
    broker.read_until(&format!("{}.scores", setting.topic), LONG, |m| m.len() > 20_000);
    first.signal("TERM");
    let ended = first.wait(Duration::from_secs(20));
    assert!(ended.status.success(), "{ended:?}");
    let second = setting.start();
    let address = address(&second);
    let scrape = || http_get(&address, "/metrics").expect("metrics").body;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in messages[half..].chunks(5_000) {
                broker.produce(&setting.topic, part.to_vec());
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        // At any moment, not only at rest.
        let mut at_work = 0;
        wait_for("scrapes while records are in flight", LONG, || {
            let metrics = scrape();
            books_balance(&metrics);
            at_work += usize::from(metric(&metrics, "residua_records_in_flight") > 0.0);
            (at_work >= 10).then_some(())
        });
    });
    let input = broker.read(&setting.topic);
    setting.wait_until_settled(&input);
    let metrics = scrape();
    let ended_too = second.stop();
    assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
    // Shown only if the test fails.
    println!("first:\n{}\nsecond:\n{}", ended.stderr, ended_too.stderr);

    assert_exactly_once(&accounted(&setting), &setting.expected(&input, &trained));
    books_balance(&metrics);
    assert!(metric(&metrics, "residua_records_consumed_total") > 50_000.0, "{metrics}");
    if let Some(checked) = support::promtool(&["check", "metrics"], &metrics) {
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    dead_letters_are_whole(&setting.dead_letters(), &input);
    alerts_are_true(&setting, &input, &faults);
}

pub fn books_balance(metrics: &str) {
    let of = |n: &str| metric(metrics, &format!("residua_records_{n}"));
    let parts =
        of("scored_total") + of("warming_total") + of("dead_lettered_total") + of("rewound_total") + of("in_flight");
    assert_eq!(of("consumed_total"), parts, "{metrics}");
}

/// Each broken message is there once, with key, value and headers as they were, and with the reason.
fn dead_letters_are_whole(letters: &[Message], input: &[Message]) {
    assert_eq!(letters.len(), 1_000);
    let reasons: HashMap<_, _> = broken::kinds().into_iter().map(|(kind, _, reason)| (kind, reason)).collect();
    let by_position: HashMap<_, _> = input.iter().map(|m| ((m.partition, m.offset), m)).collect();
    let mut kinds = BTreeSet::new();
    for letter in letters {
        let header = |n: &str| {
            let value =
                letter.header(&format!("__connect.errors.{n}")).unwrap_or_else(|| panic!("no header {n}: {letter:?}"));
            std::str::from_utf8(value).expect("a header in UTF-8")
        };
        let position = (header("partition").parse().unwrap(), header("offset").parse().unwrap());
        let original = by_position[&position];
        assert_eq!((&letter.key, letter.timestamp_ms), (&original.key, original.timestamp_ms));
        assert_eq!(letter.header("trace"), Some(&[0, 1, 255][..]));
        let kind = std::str::from_utf8(letter.header("kind").expect("the original header")).unwrap();
        kinds.insert(kind.to_owned());
        assert_eq!(header("exception.class.name"), reasons[kind], "{kind}: {}", header("exception.message"));
        assert!(!header("exception.message").is_empty());
        match letter.header("residua.truncated-from-bytes") {
            None => assert_eq!(letter.value, original.value, "{kind}"),
            Some(bytes) => {
                assert_eq!(bytes, b"950000");
                assert_eq!(letter.value.as_ref().map(Vec::len), Some(900_000));
            }
        }
    }
    assert_eq!(kinds.len(), 20);
}

/// Records after a fault that may still be flagged for it: a smoothed statistic takes that many to forget.
const ECHO: usize = 40;

/// Alerts keep to the schema, belong to flagged records, explain themselves, every fault has one, and hardly any other record.
fn alerts_are_true(setting: &Setting<'_>, input: &[Message], faults: &[Fault]) {
    let schema: Value =
        serde_json::from_str(include_str!("../../deploy/schema/alert.schema.json")).expect("the schema");
    let schema = jsonschema::validator_for(&schema).expect("a valid schema");
    let flagged: BTreeSet<String> =
        setting.scores().iter().map(line).filter(|l| l["flagged"] == true).map(|l| text(&l, "id").to_owned()).collect();
    let numbers: HashMap<_, _> = input
        .iter()
        .filter_map(|m| {
            Some((
                format!("{}-{}-{}", setting.topic, m.partition, m.offset),
                String::from_utf8_lossy(m.header("n")?).into_owned(),
            ))
        })
        .collect();
    let mut alerted = BTreeSet::new();
    let mut found = vec![false; faults.len()];
    let mut false_incidents = BTreeSet::new();
    for message in setting.broker.read(&format!("{}.anomalies", setting.topic)) {
        let alert = line(&message);
        assert!(
            schema.is_valid(&alert),
            "{alert}: {:?}",
            schema.iter_errors(&alert).map(|e| e.to_string()).collect::<Vec<_>>()
        );
        assert_eq!(message.key.as_deref(), Some(text(&alert, "series").as_bytes()));
        let shares: f64 = alert["sensors"].as_array().unwrap().iter().map(|s| s["share"].as_f64().unwrap()).sum();
        assert!((shares + alert["other_share"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{alert}");
        let id = text(&alert, "id").to_owned();
        let (machine, step) = numbers[&id]
            .split_once(':')
            .map(|(m, s)| (m.parse::<usize>().unwrap(), s.parse::<usize>().unwrap()))
            .unwrap();
        for (fault, found) in faults.iter().zip(&mut found) {
            *found |= fault.machine == machine && (fault.from..fault.to).contains(&step);
        }
        let of_a_fault = |f: &Fault| f.machine == machine && (f.from..f.to + ECHO).contains(&step);
        if !faults.iter().any(of_a_fault) {
            false_incidents.insert(text(&alert, "incident").to_owned());
        }
        assert!(alerted.insert(id), "alerted twice: {alert}");
    }
    assert_eq!(alerted, flagged);
    // The budget is 2 of the 200,000.
    assert!(false_incidents.len() <= 6, "incidents without a fault: {false_incidents:?}");
    assert!(
        found.iter().all(|f| *f),
        "faults without an alert: {:?}",
        faults.iter().zip(&found).filter(|(_, f)| !**f).collect::<Vec<_>>()
    );
}

#[test]
fn joining_leaving_and_killed_instances_lose_and_repeat_nothing() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(
        broker,
        "rebalance",
        "session_timeout = \"6s\"\nheartbeat_interval = \"1s\"\ntransaction_timeout = \"5s\"",
    );
    let first = setting.start_trained();
    let trained = ends(&broker.read(&setting.topic));
    let scores = format!("{}.scores", setting.topic);
    let mut produced = 0;
    let mut produce = |steps: usize| {
        let from = TRAINING_STEPS + produced;
        broker.produce(&setting.topic, plant::records(3, from..from + steps, &[]));
        produced += steps;
        produced * MACHINES
    };
    produce(300);
    let second = setting.start();
    produce(200);
    second.wait_for_line("partitions assigned", LONG);
    first.signal("KILL");
    produce(200);
    let third = setting.start();
    let total = produce(300);
    broker.read_until(&scores, LONG, |m| m.len() >= total / 2);
    second.stop();
    produce(200);
    let input = broker.read(&setting.topic);
    setting.wait_until_settled(&input);
    third.signal("INT");
    assert!(third.wait(Duration::from_secs(20)).status.success());
    assert_exactly_once(&accounted(&setting), &setting.expected(&input, &trained));
}

/// With the headers that say why, such a dead letter is larger than the topic takes: it is cut, and nothing stands still.
#[test]
fn a_broken_message_as_large_as_kafka_takes_is_cut_and_not_tried_for_ever() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "large", "");
    let process = setting.start_trained();
    let trained = ends(&broker.read(&setting.topic));
    let broken = |key: usize, value: usize, header: usize| Outgoing {
        partition: Some(0),
        headers: vec![("trace".to_owned(), vec![b'h'; header])],
        ..Outgoing::new(vec![b'k'; key], vec![b'v'; value])
    };
    let large = [(148_450, 900_000, 10), (1_048_000, 10, 10), (10, 10, 1_048_000), (10, 1_048_000, 10)];
    let producer = broker.producer(&[("message.max.bytes", "1048588")]); // Kafka's default for a topic
    for (key, value, header) in large {
        support::send(&producer, &setting.topic, &broken(key, value, header));
    }
    support::settle(&producer);
    broker.produce(&setting.topic, plant::records(5, TRAINING_STEPS..TRAINING_STEPS + 20, &[]));
    let input = broker.read(&setting.topic);
    setting.wait_until_settled(&input);
    process.stop();
    assert_exactly_once(&accounted(&setting), &setting.expected(&input, &trained));
    let letters = setting.dead_letters();
    assert_eq!(letters.len(), large.len());
    assert!(
        letters.iter().any(|l| l.value.as_ref().is_some_and(|v| v.len() == 450_000)),
        "none was too large at first"
    );
    let told = |letter: &Message, header: &str| letter.header(header).map(|v| String::from_utf8_lossy(v).into_owned());
    for letter in &letters {
        let offset: i64 = told(letter, "__connect.errors.offset").unwrap().parse().unwrap();
        let original = input.iter().find(|m| m.partition == 0 && m.offset == offset).unwrap();
        let cut = [
            (&original.key, &letter.key, "residua.key-truncated-from-bytes"),
            (&original.value, &letter.value, "residua.truncated-from-bytes"),
        ];
        for (whole, kept, header) in cut {
            let (whole, kept) = (whole.as_ref().unwrap(), kept.as_ref().unwrap());
            assert!(whole.starts_with(kept));
            assert_eq!(told(letter, header), (kept.len() < whole.len()).then(|| whole.len().to_string()));
        }
        let dropped = letter.header("trace").is_none();
        assert_eq!(told(letter, "residua.headers-dropped"), dropped.then(|| "1".to_owned()));
        assert_eq!(dropped, original.header("trace").unwrap().len() > 900_000);
    }
}

#[test]
fn at_least_once_loses_nothing_and_repeats_with_the_same_id() {
    let Some(broker) = support::kafka() else { return };
    let more = "delivery = \"at-least-once\"\nsession_timeout = \"6s\"\nheartbeat_interval = \"1s\"\ntransaction_timeout = \"5s\"";
    let setting = Setting::new(broker, "at-least-once", more);
    let first = setting.start_trained();
    let trained = ends(&broker.read(&setting.topic));
    broker.produce(
        &setting.topic,
        mixed(plant::records(4, TRAINING_STEPS..TRAINING_STEPS + 500, &[]), broken::messages(40)),
    );
    broker.read_until(&format!("{}.scores", setting.topic), LONG, |m| m.len() > 1_000);
    first.signal("KILL");
    let second = setting.start();
    let input = broker.read(&setting.topic);
    setting.wait_until_settled(&input);
    second.stop();
    let seen = accounted(&setting);
    let expected = setting.expected(&input, &trained);
    assert_eq!(seen.keys().cloned().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_fleet_that_starts_together_publishes_one_model() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "fleet", "");
    broker.produce(&setting.topic, plant::records(1, 0..TRAINING_STEPS, &[]));
    let fleet: Vec<_> = (0..3).map(|_| setting.start()).collect();
    for process in &fleet {
        process.wait_for_line("model in force", LONG);
    }
    let models = broker.read(&format!("residua-{}.models", setting.topic));
    assert_eq!(models.len(), 1, "models published");
}
