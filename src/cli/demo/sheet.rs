//! The plant as a file, for whatever works on files.

use std::io::Write;

use serde_json::Value;

use super::plant::{Plant, RUN_RECORDS};
use super::sensors::Sensor;
use super::wire;

/// The records of one run, which begins with its training part, as CSV: the time, the pump, its sensors (empty: missing, or no number), and whether a
/// fault is going on.
///
/// # Errors
/// `out` cannot be written.
pub fn write(plant: Plant, out: impl Write) -> anyhow::Result<()> {
    let mut sheet = ::csv::Writer::from_writer(out);
    let names = Sensor::ALL.map(Sensor::path);
    sheet.write_record(["timestamp", "pump"].into_iter().chain(names).chain(["label"]))?;
    for record in plant.take(RUN_RECORDS) {
        let value: Value = serde_json::from_slice(&record.json)?;
        let head = [record.time_ms.to_string(), wire::pump_name(record.pump)];
        let label = u8::from(record.fault.is_some()).to_string();
        let cells = names.map(|name| {
            let number = name.split('.').try_fold(&value, |value, part| value.get(part)).and_then(Value::as_f64);
            number.map(|number| number.to_string()).unwrap_or_default()
        });
        sheet.write_record(head.into_iter().chain(cells).chain([label]))?;
    }
    Ok(sheet.flush()?)
}

#[cfg(test)]
mod tests {
    use super::super::plant::TRAINING_RECORDS;
    use super::*;

    #[test]
    fn without_noise_it_is_the_same_plant() {
        let rows = |noise: f64| {
            let mut written = Vec::new();
            write(Plant::with_noise(1, noise), &mut written).unwrap();
            let text = String::from_utf8(written).unwrap();
            let flow = |line: &str| line.split(',').nth(3).and_then(|cell| cell.parse::<f64>().ok());
            text.lines().skip(1).map(flow).collect::<Vec<_>>()
        };
        let (noisy, truth) = (rows(1.0), rows(0.0));
        let off: Vec<f64> = noisy.iter().zip(&truth).filter_map(|(a, b)| Some(((*a)? - (*b)?).powi(2))).collect();
        assert!(off.len() > 29_000 && noisy.iter().zip(&truth).all(|(a, b)| a.is_some() == b.is_some()));
        // As the table of the sensors says of flow.
        let deviation = (off.iter().sum::<f64>() / off.len() as f64).sqrt();
        assert!((1.9..2.1).contains(&deviation), "{deviation}");
    }

    #[test]
    fn the_file_has_every_record_with_its_sensors_and_says_which_are_faulty() {
        let mut written = Vec::new();
        write(Plant::new(1), &mut written).unwrap();
        let text = String::from_utf8(written).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!((rows.len(), rows[0].len()), (1 + RUN_RECORDS, 13));
        let faulty = |rows: &[Vec<&str>]| rows.iter().filter(|row| row[12] == "1").count();
        assert_eq!(faulty(&rows[1..=TRAINING_RECORDS]), 0);
        let share = faulty(&rows) as f64 / RUN_RECORDS as f64;
        assert!((0.01..0.2).contains(&share), "{share}");
        let present = rows[1..].iter().flat_map(|row| &row[2..12]).filter(|cell| !cell.is_empty()).count();
        assert!(present > 9 * RUN_RECORDS, "{present}");
    }
}
