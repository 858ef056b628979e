//! What must be remembered of each record between observe and emit. Reused for every batch: no allocation per record.

use std::ops::Range;

use crate::record::{EventTime, Position};

/// Records observed and not yet judged, in order.
#[derive(Default)]
pub struct Batch {
    rows: Vec<Row>,
    /// Series keys and trace headers, one after another.
    bytes: Vec<u8>,
}

struct Row {
    position: Position,
    time: EventTime,
    series: Range<usize>,
    traceparent: Option<Range<usize>>,
    silent: bool,
}

/// One record of a batch.
pub struct Entry<'a> {
    pub position: Position,
    pub time: EventTime,
    pub series: &'a str,
    pub traceparent: Option<&'a [u8]>,
    /// Whether it was judged and written before, and is only read again for its series' state.
    pub silent: bool,
}

impl Batch {
    pub fn push(&mut self, position: Position, time: EventTime, series: &str, traceparent: Option<&[u8]>) {
        let series = self.keep(series.as_bytes());
        let traceparent = traceparent.map(|t| self.keep(t));
        self.rows.push(Row { position, time, series, traceparent, silent: false });
    }

    /// Keeps the place of a record that is only read again.
    pub fn push_silent(&mut self, position: Position, time: EventTime) {
        self.rows.push(Row { position, time, series: 0..0, traceparent: None, silent: true });
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The record that was pushed as number `index`, counted from 0.
    pub fn get(&self, index: usize) -> Entry<'_> {
        let row = &self.rows[index];
        Entry {
            position: row.position,
            time: row.time,
            series: std::str::from_utf8(&self.bytes[row.series.clone()]).unwrap_or_default(),
            traceparent: row.traceparent.clone().map(|range| &self.bytes[range]),
            silent: row.silent,
        }
    }

    pub fn clear(&mut self) {
        self.rows.clear();
        self.bytes.clear();
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }
}
