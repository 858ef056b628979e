//! What seldom happens on Kafka's side, and must neither stop the daemon nor pass unnoticed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::Offset;
use residua::kafka::{Input, KafkaSettings, Polled, StartAt};

use crate::plant;
use crate::setting::{LONG, Setting, TRAINING_STEPS, address, line, text};
use crate::support::{self, Broker, PATIENCE, http_get, wait_for};

#[test]
fn a_header_whose_name_is_not_utf8_is_left_out_and_stops_nothing() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "header", "");
    let process = setting.start_trained();
    broker.produce_with_header_name(&setting.topic, b"no record", b"\xff\xfe");
    broker.produce_with_header_name(&setting.topic, b"no record either", b"name");
    let letters = broker.read_until(&format!("{}.dead-letters", setting.topic), LONG, |m| m.len() == 2);
    let told = |value: &[u8], header: &str| {
        let letter = letters.iter().find(|l| l.value.as_deref() == Some(value)).expect("its dead letter");
        letter.header(header).map(|v| String::from_utf8_lossy(v).into_owned())
    };
    assert_eq!(told(b"no record", "residua.headers-dropped").as_deref(), Some("all"));
    assert_eq!(told(b"no record", "__connect.errors.exception.class.name").as_deref(), Some("invalid_json"));
    assert_eq!(told(b"no record either", "residua.headers-dropped"), None);
    assert_eq!(told(b"no record either", "name").as_deref(), Some("x"));
    let ended = process.stop();
    assert!(ended.status.success() && !ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn records_that_retention_takes_before_they_are_read_are_counted_and_the_rest_is_scored() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "retention", "");
    let process = setting.start_trained();
    let address = address(&process);
    process.signal("STOP");
    broker.produce(&setting.topic, plant::records(2, TRAINING_STEPS..TRAINING_STEPS + 100, &[]));
    let input = broker.read(&setting.topic);
    // In each partition the first half of what is new.
    let mut keep = TopicPartitionList::new();
    let mut lost = 0;
    for partition in 0..4 {
        let of = |records: &mut dyn Iterator<Item = i64>| records.max().unwrap_or(-1) + 1;
        let end = of(&mut input.iter().filter(|m| m.partition == partition).map(|m| m.offset));
        let read = broker.committed(&format!("residua-{}", setting.topic), &setting.topic)[partition as usize];
        let read = read.unwrap_or_else(|| trained_until(broker, &setting, partition));
        let from = (read + end) / 2;
        keep.add_partition_offset(&setting.topic, partition, Offset::Offset(from)).unwrap();
        lost += from - read;
    }
    assert!(lost > 1_000, "{lost}");
    let admin: AdminClient<DefaultClientContext> = broker.client().create().expect("an admin client");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let deleted = runtime.block_on(admin.delete_records(&keep, &AdminOptions::new())).expect("delete records");
    assert!(deleted.elements().iter().all(|e| e.error().is_ok()), "{deleted:?}");
    process.signal("CONT");
    setting.wait_until_settled(&input);
    let metrics = http_get(&address, "/metrics").expect("metrics").body;
    let counted = support::metric(&metrics, "residua_records_lost_to_retention_total") as i64;
    let ended = process.stop();
    assert!(ended.status.success() && ended.stderr.contains("deleted records before they were read"), "{ended:?}");
    let scored: BTreeSet<_> = setting.scores().iter().map(|m| text(&line(m), "id").to_owned()).collect();
    // A fetch that was under way may have saved a few.
    assert!((lost / 2..=lost).contains(&counted), "{counted} of {lost}");
    assert_eq!(scored.len() as i64, 100 * plant::MACHINES as i64 - counted);
}

/// Where reading starts in a partition before anything is committed: just after what the model was trained on.
fn trained_until(broker: &Broker, setting: &Setting<'_>, partition: i32) -> i64 {
    let before = broker.read(&setting.topic).into_iter().filter(|m| m.partition == partition);
    let step = |m: &support::Message| {
        let n = String::from_utf8_lossy(m.header("n").expect("its number")).into_owned();
        n.split_once(':').expect("machine:step").1.parse::<usize>().expect("a step")
    };
    before.filter(|m| step(m) < TRAINING_STEPS).map(|m| m.offset + 1).max().unwrap_or(0)
}

#[test]
fn a_process_whose_name_another_one_takes_ends_and_says_so() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "fenced", "instance_id = \"one\"");
    let first = setting.start_trained();
    let second = setting.start();
    second.wait_for_line("partitions assigned", LONG);
    let ended = first.wait(PATIENCE);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.stderr.contains("fenced"), "{ended:?}");
    second.stop();
}

#[test]
fn going_back_without_partitions_is_nothing() {
    let Some(broker) = support::kafka() else { return };
    let input = support::topic("rewind");
    broker.create_topic(&input, 1, &[]);
    let mut settings = KafkaSettings { brokers: broker.bootstrap.clone(), input, ..KafkaSettings::default() };
    settings.derive_names();
    let mut member = Input::join(&settings, 0).expect("join the group");
    let go_back = |member: &mut Input| {
        let found = member.look_up(&[], &|| true, &|_| StartAt::Earliest).expect("nothing to look up");
        assert!(found.is_empty());
        member.resume(&BTreeMap::new()).expect("nothing to go back to");
    };
    go_back(&mut member);
    wait_for("an assignment", PATIENCE, || {
        matches!(member.poll(Duration::from_millis(100)), Ok(Polled::Assign(_))).then_some(())
    });
    go_back(&mut member);
    member.leave(Duration::from_secs(5));
}
