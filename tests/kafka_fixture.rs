//! Goal: what other tests believe about a topic, a process or a page through `support` is so.
//! Method: write to the real Kafka and read back; run small shell programs; answer one HTTP request by hand.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use support::{Isolation, Outgoing, PATIENCE, Process, send, settle, topic, wait_for};

#[test]
fn what_is_written_is_read_back() {
    let Some(kafka) = support::kafka() else {
        return;
    };
    let name = topic("round-trip");
    kafka.create_topic(&name, 3, &[]);
    let full = Outgoing {
        partition: Some(1),
        headers: vec![("traceparent".into(), b"00-1-2-03".to_vec()), ("empty".into(), vec![])],
        timestamp_ms: Some(1_000_000_000_123),
        ..Outgoing::new("key", vec![0xff, 0x00])
    };
    let tombstone = Outgoing { partition: Some(2), key: Some(b"gone".to_vec()), ..Outgoing::default() };
    kafka.produce(&name, [full.clone(), tombstone.clone(), Outgoing { partition: Some(2), ..Outgoing::default() }]);

    let read = kafka.read(&name);

    let positions: Vec<_> = read.iter().map(|message| (message.partition, message.offset)).collect();
    assert_eq!(positions, [(1, 0), (2, 0), (2, 1)]);
    assert_eq!((&read[0].key, &read[0].value), (&full.key, &full.value));
    assert_eq!((&read[0].headers, read[0].timestamp_ms), (&full.headers, full.timestamp_ms));
    assert_eq!((read[0].header("traceparent"), read[0].header("none")), (Some(b"00-1-2-03".as_slice()), None));
    assert_eq!((&read[1].key, &read[1].value), (&tombstone.key, &None));
    assert_eq!((&read[2].key, &read[2].value), (&None, &None));
}

#[test]
fn many_messages_keep_their_order() {
    let Some(kafka) = support::kafka() else {
        return;
    };
    let name = topic("many");
    kafka.create_topic(&name, 1, &[]);
    // More than the client library's queue holds.
    let count = 150_000;
    kafka.produce(&name, (0..count).map(|i| Outgoing::new("k", i.to_string())));
    let read = kafka.read(&name);
    assert_eq!(read.len(), count);
    for (i, message) in read.iter().enumerate() {
        assert_eq!((message.offset, message.text()), (i as i64, i.to_string().as_str()));
    }
}

#[test]
fn an_aborted_transaction_is_invisible() {
    let Some(kafka) = support::kafka() else {
        return;
    };
    let name = topic("transactions");
    kafka.create_topic(&name, 1, &[]);
    let producer = kafka.producer(&[("transactional.id", &name), ("transaction.timeout.ms", "60000")]);
    // A fresh broker refuses for about a second, while it loads its coordinator.
    wait_for("a transaction coordinator", PATIENCE, || producer.init_transactions(PATIENCE).ok());
    for (value, keep) in [("aborted", false), ("committed", true)] {
        producer.begin_transaction().expect("begin");
        send(&producer, &name, &Outgoing::new("k", value));
        settle(&producer);
        let end = if keep { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) };
        end.expect("end the transaction");
    }
    producer.begin_transaction().expect("begin");
    send(&producer, &name, &Outgoing::new("k", "open"));
    settle(&producer);

    let texts = |isolation| -> Vec<String> {
        kafka.read_with(&name, isolation).iter().map(|message| message.text().to_owned()).collect()
    };
    assert_eq!(texts(Isolation::Uncommitted), ["aborted", "committed", "open"]);
    assert_eq!(texts(Isolation::Committed), ["committed"]);
    producer.abort_transaction(PATIENCE).expect("abort");
}

#[test]
fn a_reader_sees_messages_that_come_later() {
    let Some(kafka) = support::kafka() else {
        return;
    };
    let name = topic("later");
    kafka.create_topic(&name, 2, &[]);
    let read = thread::scope(|scope| {
        let reader = scope.spawn(|| kafka.read_until(&name, PATIENCE, |messages| messages.len() >= 4));
        for i in 0..4 {
            kafka.produce(&name, [Outgoing { partition: Some(i % 2), ..Outgoing::new("k", "v") }]);
        }
        reader.join().expect("the reader")
    });
    assert_eq!(read.len(), 4);
}

#[test]
fn committed_offsets_of_a_group_are_seen() {
    let Some(kafka) = support::kafka() else {
        return;
    };
    let (name, group) = (topic("offsets"), topic("group"));
    kafka.create_topic(&name, 2, &[]);
    assert_eq!(kafka.committed(&group, &name), [None, None]);
    let consumer: BaseConsumer = kafka.client().set("group.id", &group).create().expect("create a consumer");
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&name, 1, Offset::Offset(7)).expect("a valid offset");
    wait_for("a group coordinator", PATIENCE, || consumer.commit(&offsets, CommitMode::Sync).ok());
    assert_eq!(kafka.committed(&group, &name), [None, Some(7)]);
}

#[test]
fn a_program_is_heard_and_ends_by_signal() {
    let process = shell("trap 'echo leaving; exit 3' TERM; echo ready >&2; while :; do sleep 0.01; done");
    assert_eq!(process.wait_for_line("read", PATIENCE), "ready");
    process.signal("TERM");
    let finished = process.wait(PATIENCE);
    assert_eq!(finished.status.code(), Some(3));
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("leaving\n", "ready\n"));
}

#[test]
#[should_panic(expected = "no line with \"ready\"")]
fn a_line_that_never_comes_ends_the_wait_with_the_program() {
    shell("echo something else").wait_for_line("ready", PATIENCE);
}

#[test]
#[should_panic(expected = "still runs after")]
fn a_program_that_stays_is_not_waited_for_longer() {
    shell("exec sleep 600").wait(Duration::from_millis(50));
}

#[test]
fn a_program_does_not_outlive_its_handle() {
    let process = shell("echo up; exec sleep 600");
    process.wait_for_line("up", PATIENCE);
    let id = process.id();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}

#[test]
fn a_page_is_fetched() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let addr = listener.local_addr().expect("an address").to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            request.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 503 No\r\nContent-Type: text/plain\r\n\r\nnot\r\n\r\nready").expect("answer");
        String::from_utf8(request).expect("a request in UTF-8")
    });

    let reply = support::http_get_with(&addr, "/readyz", &[("Accept", "text/plain")]).expect("an answer");

    assert_eq!((reply.status, reply.body.as_str()), (503, "not\r\n\r\nready"));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    let request = server.join().expect("the server");
    assert!(request.starts_with("GET /readyz HTTP/1.0\r\n") && request.contains("\r\nAccept: text/plain\r\n"));
    assert_eq!(support::http_get(&addr, "/"), None, "nobody listens any more");
}

fn shell(script: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Process::spawn(command)
}
