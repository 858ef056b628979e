//! Checkpoints and what comes back from them: the same bits, whatever happened in between.

use std::collections::BTreeMap;

use super::super::state::SeriesState;
use super::*;

/// A compacted topic: the newest marker of each partition, and the newest bytes of each of its series.
#[derive(Clone, Default)]
struct Stored(BTreeMap<i32, (Vec<u8>, Newest)>);

type Newest = BTreeMap<String, Vec<u8>>;

impl Stored {
    fn checkpoint(&mut self, detector: &mut Detector, partition: i32, next: i64) -> usize {
        let (marker, series) = self.0.entry(partition).or_default();
        let mut written = 0;
        *marker = detector.checkpoint(PartitionId(partition), NextOffset(next), |name, bytes| {
            written += 1;
            match bytes {
                Some(bytes) => drop(series.insert(name.to_owned(), bytes.to_vec())),
                None => drop(series.remove(name)),
            }
        });
        written
    }

    fn restore(&self, detector: &mut Detector, partition: i32, until: i64) -> i64 {
        let Some((marker, series)) = self.0.get(&partition) else { return 0 };
        let series = series.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let (next, unreadable) = detector.restore(PartitionId(partition), marker, series, NextOffset(until)).unwrap();
        assert_eq!(unreadable, 0);
        next.0
    }
}

/// Records of two partitions: twelve series that come and go, with gaps and late records.
fn log(seed: u64, rows: usize) -> Vec<(Position, String, EventTime, Vec<f64>)> {
    let (choice, values) = (uniform(seed, 3 * rows), plant(seed, rows, 3));
    let mut next = [0i64; 2];
    let mut clock = 0i64;
    (0..rows)
        .map(|i| {
            let [which, who, jump] = [0, 1, 2].map(|k| choice[3 * i + k]);
            let partition = usize::from(which < 0.5);
            next[partition] += 1 + i64::from(who < 0.1); // offsets have holes
            clock += if jump > 0.99 { 200_000 } else { (jump * 10_000.0) as i64 - 2_000 };
            let series = format!("s{}", (12.0 * who * who) as usize);
            let values = values[3 * i..3 * i + 3].to_vec();
            (at(partition as i32, next[partition]), series, EventTime(clock), values)
        })
        .collect()
}

/// Whatever is lost when the process is killed, it is found again: checkpoint, replay, and the same bits.
#[test]
fn a_detector_that_is_killed_and_restored_says_what_an_undisturbed_one_says() {
    for (model, seeds) in every_kind(3, 3).into_iter().zip([0..3, 3..20, 20..23, 23..26]) {
        survives(&model, seeds, 4, false);
    }
    // Four of the series were trained on, the others learn their scale; one of them to the end.
    survives(&of_a_fleet(3, 3), 26..38, 12, true);
}

fn survives(model: &Arc<Model>, seeds: std::ops::Range<u64>, max: usize, sizes: bool) {
    let settings = SeriesSettings { max, idle: Duration::from_secs(300), gap: Duration::from_secs(60) };
    // So generous that there are incidents in ordinary noise.
    let alarms = DetectorSettings { alarms: "1 per 8 records".parse().unwrap(), ..Default::default() };
    let fresh = || Detector::new(Arc::clone(model), &alarms, &settings, &INCIDENTS);
    let mut incidents = 0;
    for seed in seeds {
        let mut log = log(seed, 1_500);
        for (_, series, _, values) in log.iter_mut().filter(|_| sizes) {
            *values = of_size(series[1..].parse::<u32>().unwrap() % 5, values);
        }
        let judge = |detector: &mut Detector, records: &[&(Position, String, EventTime, Vec<f64>)]| {
            for (position, series, time, values) in records {
                detector.observe(Arrival { position: *position, series, time: *time }, values);
            }
            let scores: Vec<_> = detector.judge().iter().map(bits).collect();
            let mut said: Vec<(Option<u64>, Vec<String>)> = scores.into_iter().map(|s| (s, Vec::new())).collect();
            for told in detector.told() {
                said[told.index.unwrap()].1.push(format!("{} {:?} {:?}", told.series, told.change, told.incident));
            }
            for (index, said) in said.iter_mut().enumerate() {
                said.1.push(format!("{:?}", detector.explain(index).sensors));
            }
            said
        };
        let all: Vec<_> = log.iter().collect();
        let undisturbed: BTreeMap<Position, _> = all.iter().map(|r| r.0).zip(judge(&mut fresh(), &all)).collect();
        assert!(undisturbed.values().filter(|v| v.0.is_some()).count() > 100, "too few are scored to tell");
        incidents += undisturbed.values().map(|v| v.1.len() - 1).sum::<usize>();

        let random = uniform(1_000 + seed, 10_000);
        let mut random = random.into_iter();
        let mut chance = |share: f64| random.next().unwrap() < share;
        let (mut stored, mut detector) = (Stored::default(), fresh());
        let (mut done, mut kills) = (0, 0);
        while done < log.len() {
            let batch = &all[done..(done + 1 + 7 * usize::from(chance(0.5))).min(log.len())];
            let told = judge(&mut detector, batch);
            for (record, told) in batch.iter().zip(told) {
                assert_eq!(told, undisturbed[&record.0], "seed {seed}, {:?}, after {kills} kills", record.0);
            }
            done += batch.len();
            if chance(0.1) {
                for partition in 0..2 {
                    let seen = all[..done].iter().filter(|r| r.0.partition.0 == partition).map(|r| r.0.offset.next().0);
                    stored.checkpoint(&mut detector, partition, seen.max().unwrap_or(0));
                }
            }
            if chance(0.05) {
                kills += 1;
                detector = fresh();
                let from = [0, 1].map(|partition| stored.restore(&mut detector, partition, i64::MAX));
                let replay: Vec<_> =
                    all[..done].iter().filter(|r| r.0.offset.0 >= from[r.0.partition.0 as usize]).copied().collect();
                judge(&mut detector, &replay);
            }
        }
        assert!(kills > 3);
    }
    assert!(incidents > 50, "{incidents} changes of incidents are too few to tell");
}

#[test]
fn a_checkpoint_holds_what_changed_and_nothing_else() {
    let model = fit(&table(2, plant(1, 400, 2)), quick(1));
    let settings = SeriesSettings { max: 3, ..SeriesSettings::default() };
    let mut detector = Detector::new(model, &DetectorSettings::default(), &settings, &INCIDENTS);
    let mut stored = Stored::default();
    let mut offset = 0;
    let mut see = |detector: &mut Detector, series: &str| {
        detector.observe(Arrival { position: at(0, offset), ..of(series) }, &[0.1, 0.2]);
        detector.judge();
        offset += 1;
        offset
    };
    let mut next = 0;
    for series in ["a", "b", "c"] {
        next = see(&mut detector, series);
    }
    assert_eq!(stored.checkpoint(&mut detector, 0, next), 3);
    assert_eq!(stored.checkpoint(&mut detector, 0, next), 0);
    next = see(&mut detector, "b");
    assert_eq!(stored.checkpoint(&mut detector, 0, next), 1);
    // `x` and `y` come and go in between: of them nothing is ever written. `a`, `c`, `b` are forgotten, and `a` comes back.
    for series in ["x", "y", "z", "p", "q", "a"] {
        next = see(&mut detector, series);
    }
    assert_eq!(stored.checkpoint(&mut detector, 0, next), 3 + 3);
    assert_eq!(stored.0[&0].1.keys().collect::<Vec<_>>(), ["a", "p", "q"]);
}

/// A checkpoint may be there that cannot be seen yet: whom it holds and who is forgotten must not come back from it.
#[test]
fn a_series_first_met_in_a_replay_is_taken_for_stored() {
    let model = fit(&table(2, plant(1, 400, 2)), quick(1));
    let settings = SeriesSettings { max: 1, ..SeriesSettings::default() };
    let mut first = Detector::new(Arc::clone(&model), &DetectorSettings::default(), &settings, &INCIDENTS);
    let see = |detector: &mut Detector, series: &str, offset: i64| {
        detector.observe(Arrival { position: at(0, offset), ..of(series) }, &[0.1, 0.2]);
        detector.judge();
    };
    see(&mut first, "a", 0);
    let mut seen = Stored::default();
    seen.checkpoint(&mut first, 0, 1);
    see(&mut first, "x", 1);
    let mut unseen = seen.clone();
    unseen.checkpoint(&mut first, 0, 2);

    let mut next = Detector::new(model, &DetectorSettings::default(), &settings, &INCIDENTS);
    assert_eq!(seen.restore(&mut next, 0, 2), 1);
    see(&mut next, "x", 1);
    see(&mut next, "b", 2);
    unseen.checkpoint(&mut next, 0, 3);
    assert_eq!(unseen.0[&0].1.keys().collect::<Vec<_>>(), ["b"]);
}

/// The bytes are a promise to the next version: a change must be made on purpose, with another version number.
#[test]
fn the_encoding_of_state_does_not_change_by_accident() {
    let model = fit(&table(2, plant(1, 400, 2)), quick(2));
    assert!(model.ordered());
    let mut state = SeriesState::new(&model, "");
    state.observe(&model, (Offset(258), EventTime(1_000)), &[model.scaler().mean[0], f64::NAN], Duration::ZERO);
    let mut bytes = Vec::new();
    state.encode(&model, &mut bytes);
    // Window of two records, blame, and of the network that ranks: averages, followed mean and slow average of four inputs.
    let (floats, numbers) = (4 + 2 + 2 + 2 * 4, 2 + 43);
    assert_eq!(model.memory_sizes(), (floats, numbers));
    assert_eq!(bytes[..13], [7, 2, 0, 0, 0, 16, 0, 0, 0, 45, 0, 0, 0], "version, features, sizes");
    assert_eq!(bytes[13..37], [2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 232, 3, 0, 0, 0, 0, 0, 0]);
    let at: Vec<f32> = bytes[37..][..4 * floats].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let missing: Vec<usize> = (0..floats).filter(|&i| at[i].is_nan()).collect();
    assert_eq!(missing, [1, 2, 3, 7], "what of the window, and of the averages, has not come yet");
    assert!(at.iter().all(|v| *v == 0.0 || v.is_nan()), "{at:?}");
    let started = SeriesState::new(&model, "").memory.numbers().flat_map(f64::to_le_bytes).collect::<Vec<u8>>();
    assert_eq!(bytes[37 + 4 * floats..][..8 * numbers], started);
    assert_eq!(bytes[37 + 4 * floats + 8 * numbers..], [0], "no incident, nor what may become one");
    let back = SeriesState::decode(&bytes, &model).unwrap();
    let mut again = Vec::new();
    back.encode(&model, &mut again);
    assert_eq!(again, bytes);

    let mut detector = detector(&model).of_edition(Edition(258));
    detector.observe(Arrival { time: EventTime(7), ..of("s") }, &[0.0, 0.0]);
    detector.judge();
    let marker = detector.checkpoint(PartitionId(0), NextOffset(3), |_, _| {});
    assert_eq!(marker[..25], [2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(marker[25..33], 7i64.to_le_bytes());
    assert_eq!(marker[89..97], 258i64.to_le_bytes());
    assert_eq!(marker[97..], *model.fingerprint().as_bytes());
}

#[test]
fn a_stored_scale_that_is_none_is_refused() {
    let model = of_a_fleet(2, 2);
    let mut good = Vec::new();
    SeriesState::new(&model, "s1").encode(&model, &mut good);
    SeriesState::decode(&good, &model).unwrap();
    // The last floats: means, scales, counts, records.
    let scale = 37 + 4 * (model.memory_sizes().0 - 5);
    for wrong in [0.0f32, -1.0] {
        let mut bytes = good.clone();
        bytes[scale..scale + 4].copy_from_slice(&wrong.to_le_bytes());
        let refused = SeriesState::decode(&bytes, &model).unwrap_err();
        assert_eq!(refused, StateError::OutOfRange { what: "scale of a series" });
    }
}

#[test]
fn stored_bytes_that_are_not_state_are_refused_and_never_panic() {
    let model = fit(&table(2, plant(1, 400, 2)), quick(2));
    let mut good = Vec::new();
    SeriesState::new(&model, "").encode(&model, &mut good);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        SeriesState::decode(&bytes, &model).unwrap_err()
    };
    assert_eq!(refused(&|b| b[0] = 9), StateError::Version { found: 9 });
    assert_eq!(refused(&|b| b.clear()), StateError::Length { expected: 37, found: 0 });
    assert_eq!(refused(&|b| b.push(0)), StateError::Incident);
    for size in [5, 9] {
        assert!(matches!(refused(&|b| b[size] += 1), StateError::Length { .. } | StateError::Incident));
        assert!(matches!(refused(&|b| b[size..size + 4].fill(0xff)), StateError::Length { .. }));
    }
    let (blame, level) = (37 + 4 * 4, 37 + 4 * 16);
    let not_finite = |at: usize, bytes: &[u8]| match refused(&|b| b[at..at + bytes.len()].copy_from_slice(bytes)) {
        StateError::OutOfRange { what } => what,
        other => panic!("{other}"),
    };
    assert_eq!(not_finite(level, &[0xff; 8]), "level");
    assert_eq!(not_finite(level + 16, &[0xff; 8]), "number of the decision");
    assert_eq!(not_finite(blame, &f32::NAN.to_le_bytes()), "number of a record or a residual");
    assert_eq!(not_finite(37, &f32::INFINITY.to_le_bytes()), "number of a record or a residual");
    // An incident that is open is divided by its threshold, which is 0 before there is one.
    let open = level + 8 * (2 + 3 * 9 + 3);
    assert_eq!(not_finite(open, &1.0f64.to_le_bytes()), "number of the decision");
    for cut in 0..good.len() {
        SeriesState::decode(&good[..cut], &model).unwrap_err();
    }

    let mut first = detector(&model);
    for name in ["a", "b"] {
        first.observe(of(name), &[0.0, 0.0]);
    }
    first.judge();
    let mut states = Vec::new();
    let marker = first.checkpoint(PartitionId(0), NextOffset(1), |name, bytes| {
        states.push((name.to_owned(), bytes.unwrap().to_vec()));
    });
    // What is taken for state can be gone on with, whatever its numbers are.
    let (name, good) = &states[1];
    let numbers = [-1.0, 0.0, 1e-320, 1e13, 1e300, -1e300, f64::MAX];
    let floats = [-1.0f32, 0.0, 1e-40, f32::MAX, -f32::MAX];
    let changes = (level..good.len() - 1).step_by(8).flat_map(|at| numbers.map(|n| (at, n.to_le_bytes().to_vec())));
    let changes = changes.chain((37..level).step_by(4).flat_map(|at| floats.map(|n| (at, n.to_le_bytes().to_vec()))));
    let mut accepted = 0;
    for (at, change) in changes {
        let mut bytes = good.clone();
        bytes[at..at + change.len()].copy_from_slice(&change);
        let mut changed = detector(&model);
        let series = [(name.as_str(), bytes.as_slice())].into_iter();
        let Ok((_, 0)) = changed.restore(PartitionId(0), &marker, series, NextOffset(1)) else { continue };
        accepted += 1;
        plant(7, 150, 2).chunks_exact(2).for_each(|row| changed.observe(of(name), row));
        for verdict in changed.judge() {
            assert!(
                matches!(verdict, Verdict::Scored { score, .. } if score.is_finite() && *score >= 0.0),
                "{at} {change:?}: {verdict:?}"
            );
        }
        for index in 0..150 {
            let why = changed.explain(index);
            assert!(why.record_score.is_finite() && why.sensors.iter().all(|s| s.share >= 0.0), "{at}: {why:?}");
        }
    }
    assert!(accepted > 50, "{accepted}");

    states[0].1.truncate(5);
    let series = || states.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    assert_eq!(first.restore(PartitionId(0), &marker, series(), NextOffset(1)), Ok((NextOffset(1), 1)));
    assert_eq!(first.series_count(), 1);
    for cut in 0..marker.len() {
        assert!(first.restore(PartitionId(0), &marker[..cut], series(), NextOffset(1)).is_err());
    }
    let other = fit(&table(2, plant(3, 400, 2)), quick(2));
    let error = detector(&other).restore(PartitionId(0), &marker, series(), NextOffset(1)).unwrap_err();
    assert!(matches!(&error, StateError::Model { expected, .. } if expected == other.fingerprint()), "{error}");
}

/// A checkpoint of another model is of no use but for this: what was open in it is over.
#[test]
fn incidents_left_open_under_another_model_are_found_in_its_checkpoint() {
    let model = fit(&table(2, plant(1, 400, 2)), quick(2));
    let mut first = detector(&model);
    let mut position = at(3, 0);
    for _ in 0..20 {
        for (series, value) in [("sound", 0.0), ("broken", 1e6)] {
            first.observe(Arrival { position, series, time: EventTime(position.offset.0) }, &[value, -value]);
            position.offset = Offset(position.offset.0 + 1);
        }
    }
    first.judge();
    let opened = first.told().iter().find(|t| t.change == Change::Opened).expect("an incident").incident.start;
    let mut stored = Stored::default();
    stored.checkpoint(&mut first, 3, 40);
    let (marker, series) = &stored.0[&3];
    // What a table before this one left behind is over already.
    let older = fit(&table(2, plant(3, 400, 2)), quick(3));
    let mut before = Vec::new();
    SeriesState::new(&older, "").encode(&older, &mut before);
    let mut series = series.clone();
    series.insert("before".to_owned(), before);
    series.insert("noise".to_owned(), vec![4; 100]);
    let series = || series.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));

    let (found, told) = Detector::left_open(PartitionId(3), marker, series());
    assert_eq!(found, model.fingerprint());
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&*told[0].series, told[0].change, told[0].incident.start), ("broken", Change::Closed, opened));
    assert!(Detector::left_open(PartitionId(3), &marker[..7], series()).1.is_empty());

    // Where the checkpoint is of use, what is not goes with the next one; only what should have been readable is complained of.
    let mut second = detector(&model);
    let restored = second.restore(PartitionId(3), marker, series(), NextOffset(40));
    assert_eq!(restored, Ok((NextOffset(40), 1)));
    let mut deleted = Vec::new();
    second.checkpoint(PartitionId(3), NextOffset(41), |name, bytes| {
        if bytes.is_none() {
            deleted.push(name.to_owned());
        }
    });
    deleted.sort();
    assert_eq!(deleted, ["before", "noise"]);
    second.begin_anew(PartitionId(3), NextOffset(50), ["sound"].into_iter());
    second.checkpoint(PartitionId(3), NextOffset(50), |name, bytes| assert_eq!((name, bytes), ("sound", None)));
}
