//! `run` says of the records of a topic what `backtest` and `score` say of the same rows in a file: each score to the last bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::setting::{LONG, Setting, line, text};
use crate::support::{self, Outgoing, residua};

const SERIES: [&str; 3] = ["press", "lathe", "mill"];
const TRAINING: usize = 1_800;
const LATER: usize = 1_200;
const ALARMS: &str = "1 per 100000 records";

/// Scores in their order, and whether a record is flagged; none while a series is warming.
type Judged = Vec<Option<(u64, bool)>>;

/// Series and values of machines in turn, each with a memory; one sensor of one of them goes off for a while.
fn rows() -> Vec<(&'static str, [String; 3])> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut state = [[0.0; 3]; SERIES.len()];
    let row = |at: usize| {
        let of = at % SERIES.len();
        state[of] = state[of].map(|v: f64| 0.9 * v + rng.random_range(-1.0..1.0));
        let [a, b, c] = state[of];
        let fault = if of == 1 && (TRAINING + 300..TRAINING + 420).contains(&at) { 9.0 } else { 0.0 };
        (SERIES[of], [a, b - a + fault, c + 0.5 * a].map(|v| format!("{v:.5}")))
    };
    (0..TRAINING + LATER).map(row).collect()
}

fn written(path: &Path, rows: &[(&str, [String; 3])]) -> String {
    let lines: Vec<String> = rows.iter().map(|(series, values)| format!("{series},{}\n", values.join(","))).collect();
    fs::write(path, format!("machine,a,b,c\n{}", lines.concat())).unwrap();
    path.display().to_string()
}

/// Runs a command on files, and reads the table that it writes to `out`.
fn table(command: &[&str], out: &Path) -> Vec<BTreeMap<String, String>> {
    let out = out.to_str().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_residua"));
    let done = program.args(command).args(["--series", "machine", "--out", out]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let Ok(written) = fs::read_to_string(out) else { return Vec::new() };
    let mut lines = written.lines().map(|line| line.split(','));
    let head: Vec<&str> = lines.next().unwrap().collect();
    lines.map(|cells| head.iter().map(|name| (*name).to_owned()).zip(cells.map(str::to_owned)).collect()).collect()
}

fn bits(score: &str) -> u64 {
    score.parse::<f64>().unwrap().to_bits()
}

#[test]
fn a_topic_and_a_file_of_the_same_records_are_judged_the_same() {
    let Some(broker) = support::kafka() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (place, rows) = (|name: &str| dir.path().join(name), rows());
    let (training, later) = rows.split_at(TRAINING);
    let all = written(&place("all.csv"), &rows);
    let (training, after) = (written(&place("training.csv"), training), written(&place("later.csv"), later));
    let model = place("m.safetensors");
    table(&["train", "file", &training], &model);
    let model = model.to_str().unwrap();

    let count = TRAINING.to_string();
    let tested = table(&["backtest", &all, "--train-rows", &count, "--alarms", ALARMS], &place("tested.csv"));
    let scored = table(&["score", &after, "--model", model, "--alarms", ALARMS], &place("scored.csv"));
    assert_eq!((tested.len(), scored.len()), (LATER, LATER));
    // A backtest has 0 for what is warming.
    let of_score: Judged = scored
        .iter()
        .map(|row| (row["verdict"] != "warming").then(|| (bits(&row["score"]), row["verdict"] == "anomaly")))
        .collect();
    let of_test: Vec<(u64, bool)> = tested.iter().map(|row| (bits(&row["score"]), row["flagged"] == "1")).collect();
    assert_eq!(of_test, of_score.iter().map(|judged| judged.unwrap_or_default()).collect::<Vec<_>>());

    let setting = Setting::new(broker, "same", "start = \"earliest\"");
    let config = setting.config.replace("[learning]", &format!("[learning]\nmodel_file = \"{model}\""));
    assert!(config.contains(ALARMS));
    broker.produce(
        &setting.topic,
        later.iter().map(|(series, [a, b, c])| {
            Outgoing::new(series.as_bytes().to_vec(), format!("{{\"a\":{a},\"b\":{b},\"c\":{c}}}"))
        }),
    );
    let process = residua(&["run"], &config);
    process.wait_for_line("partitions assigned", LONG);
    setting.wait_until_settled(&broker.read(&setting.topic));
    process.stop();
    let mut of_run: BTreeMap<String, Judged> = BTreeMap::new();
    let mut flagged = 0;
    // By partition and offset, so in the order of each series.
    for line in setting.scores().iter().map(line) {
        let judged = line["score"].as_f64().map(|score| (score.to_bits(), line["flagged"] == true));
        flagged += usize::from(judged.is_some_and(|(_, flagged)| flagged));
        of_run.entry(text(&line, "series").to_owned()).or_default().push(judged);
    }
    assert!((10..LATER / 4).contains(&flagged), "{flagged} flagged");
    for series in SERIES {
        let expected: Judged =
            later.iter().zip(&of_score).filter(|((of, _), _)| *of == series).map(|(_, j)| *j).collect();
        assert_eq!(of_run[series], expected, "{series}");
    }
}
