//! `residua project`: the records of a file as a map, by an autoencoder with a code of two numbers, and beside it by principal components.

mod drawing;
mod figures;
mod page;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::csv::{file_name, read_features};
use super::learn::training_bar;
use super::quality::auc;
use super::scoring::{self, Subject, is_kept};
use crate::detector::Verdict;
use crate::model::{ADOPT_AFTER, Activation, AlarmBudget, Auto, Cloud, Model, ModelSettings, Projection};
use crate::service::{all_cores, load};
use figures::{COMPARED_MAX, faithful, separation};

/// Records on a map, about; of more, evenly spaced ones.
const RECORDS_MAX: usize = 20_000;
/// And so many numbers of all of them: some copies are held at a time.
const NUMBERS_MAX: usize = 4_000_000;
/// Blocks of consecutive records, of which every fourth is not fitted to: the figures are of those.
const BLOCKS: usize = 40;
/// Codes nearer to 0 than this part of the largest one count as 0.
const NOTHING: f32 = 0.01;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Write the map here: .html (under the mouse, each record), .svg, or .csv
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Colour by score, series, time or label; in a page it can be changed
    #[arg(long, default_value = "score")]
    by: By,
    /// Column of 0 and 1 (anomaly), which is shown and never learned from
    #[arg(long, value_name = "COL")]
    label: Option<String>,
    /// bottleneck: a network with a code of two numbers is trained on these records. latent: the code of the model, reduced by principal components
    #[arg(long, default_value = "bottleneck")]
    from: From,
    /// Weight of the L1 penalty on the code in the networks that are compared with those without
    #[arg(long, default_value_t = 0.01)]
    sparsity: f64,
    /// Widths of the code that are compared, separated by commas; by default 1, 2, 4 and so on to half of the inputs, at most 32
    #[arg(long, value_name = "N,N,...", value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Training steps of each network
    #[arg(long, default_value_t = 4_000)]
    steps: usize,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Score,
    Series,
    Time,
    Label,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Bottleneck,
    Latent,
}

/// A record on the map.
struct Point {
    row: usize,
    series: String,
    score: f64,
    flagged: bool,
    labelled: bool,
    /// In the sensors' own units; NaN = missing.
    values: Vec<f64>,
    /// On the autoencoder's map, and on that of the principal components.
    places: [[f32; 2]; 2],
}

/// What is said of a map.
#[derive(Clone, Copy)]
struct Figures {
    explained: f64,
    error: f64,
    faithful: Option<(f64, f64)>,
    separation: Option<f64>,
}

/// Share of the variance that survives in a code of so many numbers.
struct Width {
    code: usize,
    principal: f64,
    autoencoder: f64,
    sparse: f64,
    /// Share of the sparse code that is next to nothing.
    empty: f64,
}

/// All that is shown.
struct Map {
    title: String,
    sensors: Vec<String>,
    points: Vec<Point>,
    labelled: bool,
    /// What the two maps are, and how good.
    names: [&'static str; 2],
    figures: [Figures; 2],
    widths: Vec<Width>,
    sparsity: f64,
    /// Of the model's score, where there are labels.
    score_auc: Option<f64>,
    /// Records that figures are over, and that are compared with each other.
    held_out: usize,
    compared: usize,
}

/// # Errors
/// Unreadable file or model, a file with none of the model's features, too few records, output not writable or of an unknown kind.
pub fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    let kind = args.out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ensure!(
        matches!(kind, "html" | "svg" | "csv"),
        "--out {}: expected a name that ends in .html, .svg or .csv",
        args.out.display()
    );
    ensure!(args.by != By::Label || args.label.is_some(), "--by label: expected --label with the column");
    let model = Arc::new(load(&args.subject.model)?);
    let map = map(args, &model)?;
    let text = match kind {
        "html" => page::html(&map, args.by)?,
        "svg" => drawing::svg(&map, args.by)?,
        _ => page::csv(&map)?,
    };
    std::fs::write(&args.out, text).with_context(|| format!("write {}", args.out.display()))?;
    write!(out, "{}", page::figures(&map))?;
    Ok(())
}

fn map(args: &Args, model: &Arc<Model>) -> Result<Map> {
    let (records, _) = read_features(&args.subject.csv, (args.label.as_deref(), false), model.schema())?;
    let (table, labels) = (records.table, records.labels);
    let mut detector = scoring::detector(model, AlarmBudget::default(), ADOPT_AFTER);
    let width = model.layer_sizes().first().map_or(0, |sizes| sizes[0]);
    let room = RECORDS_MAX.min(NUMBERS_MAX / width.max(1));
    let (mut points, mut inputs) = (Vec::new(), Vec::new());
    scoring::score(&table, 0, &mut detector, &mut |detector, index, row, verdict| {
        let Verdict::Scored { score, flagged, .. } = verdict else { return Ok(()) };
        if is_kept(row, table.rows(), room) {
            inputs.extend_from_slice(detector.input(0, index).unwrap_or_default());
            points.push(Point {
                row,
                series: table.name_of(row).to_owned(),
                score,
                flagged,
                labelled: labels.get(row).copied().unwrap_or(false),
                values: table.row(row).to_vec(),
                places: Default::default(),
            });
        }
        Ok(())
    })?;
    let Some(cloud) = Cloud::new(width, inputs).filter(|cloud| cloud.rows() >= BLOCKS) else {
        bail!("draw a map of {} scored records: expected at least {BLOCKS}", points.len());
    };
    ensure!(width > 2, "draw a map of records of {width} numbers: expected three or more");
    let (held, fit): (Vec<usize>, Vec<usize>) = (0..cloud.rows()).partition(|row| row * BLOCKS / cloud.rows() % 4 == 3);
    let sizes = sizes(args, width)?;
    let settings = ModelSettings {
        // Smooth, as a map should be, and bent sooner: see the module of the projection.
        activation: Activation::Tanh,
        hidden: Auto::Auto,
        steps: args.steps,
        ..ModelSettings::default()
    };
    let sparse_settings = ModelSettings { sparsity: args.sparsity, ..settings.clone() };
    settings.check()?;
    sparse_settings.check()?;
    let plain = train(&cloud, &fit, &sizes, &settings)?;
    let sparse = train(&cloud, &fit, &sizes, &sparse_settings)?;
    let principal = |code: usize| cloud.principal(&fit, code);
    let mut widths = Vec::new();
    for ((&code, plain), sparse) in sizes.iter().zip(&plain).zip(&sparse) {
        let explained = |projection: &Projection| cloud.explained(&projection.rebuilt, &held).0;
        let (principal, autoencoder) = (explained(&principal(code)?), explained(plain));
        widths.push(Width { code, principal, autoencoder, sparse: explained(sparse), empty: empty(sparse) });
    }
    let of_two = sizes.iter().position(|code| *code == 2).and_then(|at| plain.into_iter().nth(at));
    let network = match (args.from, of_two) {
        (From::Bottleneck, Some(network)) => network,
        _ => model.reduced(&cloud, &fit, 2)?,
    };
    let maps = [network, principal(2)?];
    for (at, point) in points.iter_mut().enumerate() {
        point.places = [0, 1].map(|map| [0, 1].map(|axis| maps[map].code(at).get(axis).copied().unwrap_or(0.0)));
    }
    let compared = evenly(&held, COMPARED_MAX);
    let originals: Vec<Vec<f32>> = compared.iter().map(|row| cloud.row(*row).to_vec()).collect();
    let shown = evenly(&(0..cloud.rows()).collect::<Vec<_>>(), 2 * COMPARED_MAX);
    let shown_labels: Vec<bool> = shown.iter().map(|at| points[*at].labelled).collect();
    let figures = [0, 1].map(|map| {
        let places = |rows: &[usize]| rows.iter().map(|at| points[*at].places[map].to_vec()).collect::<Vec<_>>();
        let (explained, error) = cloud.explained(&maps[map].rebuilt, &held);
        let separation = separation(&places(&shown), &shown_labels);
        Figures { explained, error, faithful: faithful(&originals, &places(&compared)), separation }
    });
    let all = |of: fn(&Point) -> f64| points.iter().map(of).collect::<Vec<f64>>();
    let truth: Vec<bool> = points.iter().map(|point| point.labelled).collect();
    Ok(Map {
        title: file_name(&args.subject.csv.file),
        sensors: detector.names().to_vec(),
        labelled: args.label.is_some(),
        names: [
            if args.from == From::Latent { "code of the model, reduced" } else { "autoencoder" },
            "principal components",
        ],
        figures,
        widths,
        sparsity: args.sparsity,
        score_auc: auc(&truth, &all(|point| point.score)),
        held_out: held.len(),
        compared: compared.len(),
        points,
    })
}

/// With two among them, which the map is of.
fn sizes(args: &Args, width: usize) -> Result<Vec<usize>> {
    let most = width - 1;
    if let Some(size) = args.sizes.iter().find(|size| !(1..=most).contains(*size)) {
        bail!("--sizes {size}: expected 1 to {most}, as the records have {width} numbers");
    }
    let doubled = (0..6).map(|power| 1 << power).take_while(|size| 2 * size <= width.max(2));
    let mut sizes: Vec<usize> = if args.sizes.is_empty() { doubled.collect() } else { args.sizes.clone() };
    sizes.push(2);
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}

/// Networks of these widths, with a progress bar on standard error if that is a terminal.
fn train(cloud: &Cloud, fit: &[usize], sizes: &[usize], settings: &ModelSettings) -> Result<Vec<Projection>> {
    let bar = training_bar();
    let made = cloud.autoencoders(fit, sizes, settings, &all_cores, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(made?)
}

/// Share of the numbers of all codes that are next to nothing.
fn empty(projection: &Projection) -> f64 {
    let size = projection.codes.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let count = projection.codes.iter().filter(|v| v.abs() <= NOTHING * size).count();
    count as f64 / projection.codes.len().max(1) as f64
}

/// About so many of them.
fn evenly(rows: &[usize], most: usize) -> Vec<usize> {
    let places = rows.iter().enumerate().filter(|(at, _)| is_kept(*at, rows.len(), most));
    places.map(|(_, row)| *row).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::csv::CsvArgs;
    use crate::cli::train_file;
    use crate::model::testing::plane;

    /// A file of 600 rows of four sensors, of which ten are far from the others.
    fn mapped(folder: &Path, out: &str, change: impl Fn(&mut Args)) -> Result<(String, String)> {
        let place = |name: &str| folder.join(name);
        let row = |(i, row): (usize, &[f64])| {
            let far = if i % 60 == 59 { 30.0 } else { 0.0 };
            let cells: Vec<String> = row.iter().map(|v| (v + far).to_string()).collect();
            format!("{},{},{}", ["x</script>", "y"][i % 2], cells.join(","), u8::from(far > 0.0))
        };
        let rows: Vec<String> = plane(1, 600, 4, 2).chunks_exact(4).enumerate().map(row).collect();
        std::fs::write(place("rows.csv"), format!("machine,a,b,c,d,label\n{}\n", rows.join("\n")))?;
        let csv = CsvArgs { file: place("rows.csv"), series: Some("machine".to_owned()), ..CsvArgs::default() };
        let train = CsvArgs { ignore: vec!["label".to_owned()], ..csv.clone() };
        train_file::run(&train_file::FileArgs::new(train, place("m.safetensors")), &mut Vec::new())?;
        let mut args = Args {
            subject: Subject { csv, model: place("m.safetensors") },
            out: place(out),
            by: By::Score,
            label: Some("label".to_owned()),
            from: From::Bottleneck,
            sparsity: 0.01,
            sizes: vec![],
            steps: 200,
        };
        change(&mut args);
        let mut said = Vec::new();
        run(&args, &mut said)?;
        Ok((String::from_utf8(said)?, std::fs::read_to_string(&args.out)?))
    }

    #[test]
    fn a_page_a_picture_and_a_table_are_of_the_same_records() {
        let folder = tempfile::tempdir().unwrap();
        let (said, page) = mapped(folder.path(), "map.html", |_| {}).unwrap();
        for expect in ["autoencoder", "principal components", "trustworthiness", "continuity", "separation"] {
            assert!(said.contains(expect) && page.contains(expect), "no {expect}: {said}");
        }
        // A series cannot end the script that it is data of, and nothing is loaded.
        assert!(page.contains("x<\\/script>") && !page.contains("x</script>"));
        assert!(!page.contains("src=") && !page.contains("url(") && !page.contains("@import"), "nothing is loaded");
        let (_, picture) = mapped(folder.path(), "map.svg", |args| args.by = By::Label).unwrap();
        assert!(picture.starts_with("<svg") && picture.matches("<circle").count() >= 2 * 600);
        let (again, sheet) = mapped(folder.path(), "map.csv", |_| {}).unwrap();
        assert_eq!(said, again);
        let lines: Vec<&str> = sheet.lines().collect();
        assert_eq!(lines[0], "row,series,score,flagged,label,autoencoder.1,autoencoder.2,pca.1,pca.2");
        assert_eq!(lines.len(), 601);
        assert!(lines[60].starts_with("59,y,") && lines[60].split(',').nth(4) == Some("1"), "{}", lines[60]);
    }

    #[test]
    fn what_the_model_compresses_to_can_be_shown_instead() {
        let folder = tempfile::tempdir().unwrap();
        let (said, _) = mapped(folder.path(), "map.csv", |args| args.from = From::Latent).unwrap();
        assert!(said.contains("code of the model, reduced"), "{said}");
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |out: &str, change: fn(&mut Args)| mapped(folder.path(), out, change).unwrap_err().to_string();
        assert!(refused("map.png", |_| {}).contains("expected a name that ends in .html, .svg or .csv"));
        let without = refused("map.svg", |args| (args.by, args.label) = (By::Label, None));
        assert!(without.contains("--by label: expected --label"), "{without}");
        let wide = refused("map.svg", |args| args.sizes = vec![2, 9]);
        assert!(wide.contains("--sizes 9: expected 1 to 3"), "{wide}");
    }
}
