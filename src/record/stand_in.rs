//! Numbers in training records that look as if they stood for "no value".

use super::Table;

/// Such a number comes at least so often, to the last digit ...
const REPEATED: usize = 3;
/// ... at one end of all values, farther from the nearest other than so many times the range of all others.
const APART: f64 = 10.0;

/// A number that a sensor repeats far from all its others, as -9999 among temperatures. Learned from, it would hide the sensor:
/// next to it all other values look alike.
#[derive(Debug, Clone, PartialEq)]
pub struct StandIn {
    pub feature: String,
    pub value: f64,
    pub records: usize,
}

/// At most one for each feature of the table.
pub(super) fn find(table: &Table) -> Vec<StandIn> {
    let names = table.schema.names().enumerate();
    names
        .filter_map(|(j, name)| of_feature(table, j).map(|(value, records)| (name, value, records)))
        .map(|(name, value, records)| StandIn { feature: name.to_string(), value, records })
        .collect()
}

fn of_feature(table: &Table, j: usize) -> Option<(f64, usize)> {
    let values = || (0..table.rows()).map(|i| table.row(i)[j]).filter(|v| !v.is_nan());
    let low = values().min_by(f64::total_cmp)?;
    let high = values().max_by(f64::total_cmp)?;
    [low, high].into_iter().find_map(|end| {
        let records = values().filter(|&v| v == end).count();
        let others = || values().filter(|&v| v != end);
        let (from, to) = (others().min_by(f64::total_cmp)?, others().max_by(f64::total_cmp)?);
        let gap = (from - end).abs().min((to - end).abs());
        // A switch has no range besides its other position.
        let apart = to > from && gap > APART * (to - from);
        (records >= REPEATED && apart).then_some((end, records))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Schema;

    #[track_caller]
    fn check(values: &[f64], expect: Option<(f64, usize)>) {
        let schema = Schema::new(vec!["x".parse().unwrap()]).unwrap();
        let table = Table { schema, values: values.to_vec(), series: vec![0; values.len()], names: vec![] };
        let expect = expect.map(|(value, records)| StandIn { feature: "x".to_owned(), value, records });
        assert_eq!(table.stand_ins(), expect.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_repeated_number_far_from_all_others_is_found() {
        check(&[20.0, 21.5, -9999.0, 19.0, -9999.0, 22.0, -9999.0], Some((-9999.0, 3)));
        check(&[0.0, 0.1, 32767.0, 0.2, 32767.0, 32767.0, f64::NAN, 32767.0], Some((32767.0, 4)));
    }

    #[test]
    fn what_is_rare_or_near_or_a_switch_is_not() {
        check(&[20.0, 21.5, -9999.0, 19.0, 22.0], None);
        check(&[20.0, 10.0, -90.0, -90.0, -90.0], None);
        check(&[0.0, 1.0, 1.0, 0.0, 1.0, 0.0], None);
        check(&[5.0; 9], None);
        check(&[f64::NAN; 9], None);
        check(&[], None);
    }
}
