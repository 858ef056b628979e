//! Requests to Kafka written by hand, for what the client library of the tests cannot say.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Broker, PATIENCE};

/// Body of a request: numbers in big endian, texts and arrays with their lengths.
#[derive(Default)]
pub struct Body(pub Vec<u8>);

impl Body {
    pub fn bytes(mut self, bytes: &[u8]) -> Body {
        self.0.extend(bytes);
        self
    }

    pub fn int8(self, v: i8) -> Body {
        self.bytes(&v.to_be_bytes())
    }

    pub fn int16(self, v: i16) -> Body {
        self.bytes(&v.to_be_bytes())
    }

    pub fn int32(self, v: i32) -> Body {
        self.bytes(&v.to_be_bytes())
    }

    pub fn int64(self, v: i64) -> Body {
        self.bytes(&v.to_be_bytes())
    }

    pub fn text(self, text: &str) -> Body {
        self.int16(text.len() as i16).bytes(text.as_bytes())
    }

    /// A variable-length integer, zigzag.
    pub fn varint(mut self, v: i32) -> Body {
        let mut left = ((v << 1) ^ (v >> 31)) as u32;
        while left >= 0x80 {
            self.0.push(left as u8 | 0x80);
            left >>= 7;
        }
        self.0.push(left as u8);
        self
    }
}

impl Broker {
    /// Sends one request (a version without tagged fields); the answer's body.
    #[track_caller]
    pub fn ask(&self, api: i16, version: i16, body: &Body) -> Vec<u8> {
        let header = Body::default().int16(api).int16(version).int32(7).int16(-1); // correlation id, no client id
        let size = Body::default().int32((header.0.len() + body.0.len()) as i32);
        let mut stream = TcpStream::connect(&self.bootstrap).expect("connect to Kafka");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        for part in [&size.0, &header.0, &body.0] {
            stream.write_all(part).expect("ask Kafka");
        }
        let mut head = [0; 8];
        stream.read_exact(&mut head).expect("an answer");
        let mut answer = vec![0; u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize - 4];
        stream.read_exact(&mut answer).expect("the whole answer");
        answer
    }

    /// Writes one record to partition 0 whose header's name is any bytes (Produce 3, record batch 2).
    #[track_caller]
    pub fn produce_with_header_name(&self, topic: &str, value: &[u8], name: &[u8]) {
        let record = Body::default().int8(0).varint(0).varint(0); // attributes, time and offset relative to the batch's
        let record = record.varint(-1).varint(value.len() as i32).bytes(value); // no key
        let record = record.varint(1).varint(name.len() as i32).bytes(name).varint(1).bytes(b"x");
        let records = Body::default().varint(record.0.len() as i32).bytes(&record.0);
        let now = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_millis() as i64;
        let checked = Body::default().int16(0).int32(0).int64(now).int64(now).int64(-1).int16(-1).int32(-1);
        let checked = checked.int32(1).bytes(&records.0);
        let batch = Body::default().int32(-1).int8(2).bytes(&crc32c(&checked.0).to_be_bytes()).bytes(&checked.0);
        let batch = Body::default().int64(0).int32(batch.0.len() as i32).bytes(&batch.0);
        let request = Body::default().int16(-1).int16(-1).int32(10_000).int32(1).text(topic).int32(1).int32(0);
        let answer = self.ask(0, 3, &request.int32(batch.0.len() as i32).bytes(&batch.0));
        // topics, name, partitions, partition, then the error
        let at = 4 + 2 + topic.len() + 4 + 4;
        assert_eq!(answer[at..at + 2], [0, 0], "Kafka refuses the record: {answer:?}");
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}
