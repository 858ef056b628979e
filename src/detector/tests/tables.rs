//! Records without an order.

use super::*;

/// A detector of these training rows, which have no order.
fn of_rows(features: usize, values: Vec<f64>) -> Detector {
    let model = fit(&table(features, values), ModelSettings::default());
    assert!(!model.ordered());
    detector(&model)
}

fn judged(detector: &mut Detector, row: &[f64]) -> (f64, bool) {
    detector.observe(of("s"), row);
    let Verdict::Scored { score, flagged, .. } = detector.judge()[0] else { panic!("warming") };
    (score, flagged)
}

/// The first four sensors follow one cause and the others another: what is rebuilt well, but of a cause that is never so
/// strong, is strange too, and the sensors that follow that cause are named.
#[test]
fn what_lies_far_out_is_strange_however_well_it_is_rebuilt() {
    const CALM: [f64; 2] = [0.3, -0.4];
    let row = |causes: [f64; 2], errors: &[f64]| -> Vec<f64> {
        errors.iter().enumerate().map(|(j, e)| causes[j / 4] * [1.0, -1.0, 2.0, 0.5][j % 4] + 0.1 * e).collect()
    };
    let (causes, errors) = (noise(1, 2 * 2_000), noise(2, 8 * 2_000));
    let rows = causes.chunks_exact(2).zip(errors.chunks_exact(8)).flat_map(|(of, errors)| row([of[0], of[1]], errors));
    let mut detector = of_rows(8, rows.collect());
    let errors = noise(3, 8 * 40);
    for (i, errors) in errors.chunks_exact(8).enumerate() {
        let mut causes = CALM;
        let far = i % 2 == 1;
        causes[i / 2 % 2] = if far { 6.0 } else { causes[i / 2 % 2] };
        let (score, flagged) = judged(&mut detector, &row(causes, errors));
        assert_eq!(flagged, far, "record {i}: {score}");
        let why = detector.explain(0);
        let of_cause: f64 = (0..4)
            .map(|j| format!("f{}", i / 2 % 2 * 4 + j))
            .filter_map(|name| why.sensors.iter().find(|sensor| sensor.name == name))
            .map(|sensor| sensor.share)
            .sum();
        assert!(!far || of_cause > 0.75, "record {i}: {why:?}");
    }
}

/// What lies between the ways in which a machine works is on the plane between them, and no farther out than they are.
#[test]
fn what_lies_between_two_ways_of_working_is_strange() {
    let row = |way: f64, errors: &[f64]| -> Vec<f64> {
        errors.iter().zip([3.0, -2.0, 4.0, 1.0, -3.0]).map(|(e, part)| way * part + 0.2 * e).collect()
    };
    let (ways, errors) = (noise(1, 2_000), noise(2, 5 * 2_000));
    let rows = ways.iter().zip(errors.chunks_exact(5)).flat_map(|(way, errors)| row(way.signum(), errors));
    let mut detector = of_rows(5, rows.collect());
    let mut alarms = 0;
    for (i, errors) in noise(3, 5 * 200).chunks_exact(5).enumerate() {
        let between = i % 10 == 9;
        let way = if between { [0.0, 0.1][i / 10 % 2] } else { [1.0, -1.0][i % 2] };
        let (score, flagged) = judged(&mut detector, &row(way, errors));
        assert!(flagged || !between, "record {i}: {score}");
        alarms += usize::from(flagged && !between);
    }
    // No more false than true ones, where those are frequent.
    assert!(alarms < 20, "{alarms} of 180");
}

/// The second sensor follows the first, and is filled in as far out as that one is.
#[test]
fn a_sensor_that_is_missing_is_not_named() {
    let row = |cause: f64, errors: &[f64]| -> Vec<f64> {
        errors.iter().enumerate().map(|(j, e)| if j < 2 { cause + 0.1 * e } else { *e }).collect()
    };
    let (causes, errors) = (noise(1, 2_000), noise(2, 4 * 2_000));
    let rows = causes.iter().zip(errors.chunks_exact(4)).flat_map(|(cause, errors)| row(*cause, errors));
    let mut detector = of_rows(4, rows.collect());
    for errors in noise(3, 4 * 10).chunks_exact(4) {
        let mut far = row(9.0, errors);
        far[1] = f64::NAN;
        let (score, flagged) = judged(&mut detector, &far);
        let parts = detector.contributions(0);
        assert!(flagged && parts[1] == 0.0 && parts[0] > 3.0 * parts[2].max(parts[3]), "{score}: {parts:?}");
    }
}

/// One in twenty-five of the training records is of the fault that comes later, and so alike that a network rebuilds it.
#[test]
fn a_fault_among_the_training_records_ranks_high_all_the_same() {
    let row = |at: usize, values: &[f64]| -> Vec<f64> {
        let faulty = if at.is_multiple_of(25) { 6.0 } else { 0.0 };
        values.iter().enumerate().map(|(j, v)| v + if j < 2 { faulty } else { 0.0 }).collect()
    };
    let rows = |seed: u64, n: usize| -> Vec<Vec<f64>> {
        plane(seed, n, 6, 3).chunks_exact(6).enumerate().map(|(at, values)| row(at, values)).collect()
    };
    let mut detector = of_rows(6, rows(1, 2_000).concat());
    let scores: Vec<f64> = rows(2, 2_000).iter().map(|row| judged(&mut detector, row).0).collect();
    let (faulty, ordinary): (Vec<_>, Vec<_>) = scores.iter().enumerate().partition(|(at, _)| at.is_multiple_of(25));
    let above =
        |score: f64| ordinary.iter().filter(|(_, other)| **other < score).count() as f64 / ordinary.len() as f64;
    let mean = faulty.iter().map(|(_, score)| above(**score)).sum::<f64>() / faulty.len() as f64;
    assert!(mean > 0.95, "the mean rank of a fault is {mean}");
}

/// Every one of few training records says how far ordinary ones lie: not a quarter of them alone.
#[test]
fn of_few_records_the_threshold_is_neither_too_low_nor_too_high() {
    let (mut alarms, mut found, mut faults) = (0, 0, 0);
    for seed in 0..8 {
        let mut detector = of_rows(10, plane(2 * seed, 100, 10, 3));
        for (at, row) in plane(2 * seed + 1, 1_000, 10, 3).chunks_exact(10).enumerate() {
            let (mut row, faulty) = (row.to_vec(), at % 25 == 24);
            if faulty {
                row[at / 25 % 10] += 1.5;
            }
            let flagged = judged(&mut detector, &row).1;
            faults += usize::from(faulty);
            found += usize::from(flagged && faulty);
            alarms += usize::from(flagged && !faulty);
        }
    }
    assert!(10 * found > 9 * faults && alarms < 250, "{found} of {faults} faults, {alarms} false alarms");
}

/// Of readings with few digits most are exactly as far from others as any share of the records.
#[test]
fn readings_that_repeat_are_no_alarm() {
    let readings = |seed: u64, n: usize| -> Vec<f64> {
        let reading = |u: f64| match (u * 100.0) as u32 {
            0..50 => 0.134,
            50..70 => 0.132,
            70..90 => 0.066,
            90..95 => 0.068,
            95..98 => 0.136,
            _ => 0.2,
        };
        uniform(seed, n).into_iter().map(reading).collect()
    };
    let mut detector = of_rows(1, readings(1, 600));
    let flagged = readings(2, 3_000).iter().filter(|reading| judged(&mut detector, &[**reading]).1).count();
    assert!(flagged < 10, "{flagged} of 3000");
    assert!(judged(&mut detector, &[1.5]).1, "another reading");
}

/// Nine of ten training records lacked a sensor that all have now: an ordinary value of it is not strange, another is.
#[test]
fn a_sensor_that_training_mostly_lacked_is_no_alarm_by_itself() {
    let mut values = noise(1, 5 * 1_500);
    values.iter_mut().skip(2).step_by(5).enumerate().filter(|(i, _)| i % 10 > 0).for_each(|(_, v)| *v = f64::NAN);
    let mut detector = of_rows(5, values);
    let fresh = noise(2, 5 * 1_000);
    let flagged = fresh.chunks_exact(5).filter(|row| judged(&mut detector, row).1).count();
    assert!(flagged <= 5, "{flagged} of 1000");
    let mut odd = fresh[..5].to_vec();
    odd[2] += 20.0;
    assert!(judged(&mut detector, &odd).1);
}
