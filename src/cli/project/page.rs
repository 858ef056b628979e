//! The map as a page that needs nothing else, as a table, and its figures as text.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Number, Value, json};

use super::{By, Figures, Map, Point, Width};
use crate::cli::drift::brief;
use crate::cli::report::{STYLE, escape};
use crate::cli::scoring::is_kept;

const SCRIPT: &str = include_str!("map.js");
/// Records that a page holds with all their values, about; more would make it heavy. All that are flagged or labelled are among them, if there is room.
const SHOWN_MAX: usize = 5_000;
/// Part of the records on each side that do not widen the picture.
const BEYOND: f64 = 0.002;

/// Names and values of the figures of both maps.
fn rows(map: &Map) -> Vec<(&'static str, [String; 2])> {
    let of = |text: &dyn Fn(&Figures) -> String| [text(&map.figures[0]), text(&map.figures[1])];
    let none = || "too few".to_owned();
    let mut rows = vec![
        ("explained variance", of(&|f| format!("{:.1} %", 100.0 * f.explained))),
        ("reconstruction error", of(&|f| format!("{:.4}", f.error))),
        ("trustworthiness", of(&|f| f.faithful.map_or_else(none, |(trust, _)| format!("{trust:.4}")))),
        ("continuity", of(&|f| f.faithful.map_or_else(none, |(_, continuity)| format!("{continuity:.4}")))),
    ];
    if map.labelled {
        let none = || "no anomalies".to_owned();
        rows.push(("separation", of(&|f| f.separation.map_or_else(none, |auc| format!("{auc:.4}")))));
    }
    rows
}

/// What the figures are of.
fn notes(map: &Map) -> String {
    let mut notes = format!(
        "Explained variance and reconstruction error (mean square per value, in scales) are of {} records that neither was fitted to; trustworthiness \
         and continuity (12 neighbours) of {} of those.",
        map.held_out, map.compared
    );
    if map.labelled {
        notes += " Separation: ROC-AUC of how far away the 12th neighbour on the map is.";
        if let Some(auc) = map.score_auc {
            let _ = write!(notes, " The model's score has {auc:.4}.");
        }
    }
    notes
}

/// As text.
pub fn figures(map: &Map) -> String {
    let [first, second] = map.names;
    let wide = first.len().max(11);
    let mut text = format!("{} records on the map\n\n{:<21}  {first:>wide$}  {second}\n", map.points.len(), "");
    for (name, [a, b]) in rows(map) {
        let _ = writeln!(text, "{name:<21}  {a:>wide$}  {b:>20}");
    }
    let _ = write!(
        text,
        "\n{}\n\nnumbers in the code  principal components  autoencoder  sparsity {}",
        notes(map).replace(". ", ".\n").replace("; ", ";\n"),
        map.sparsity
    );
    let _ = writeln!(text, "  of it next to nothing");
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    for Width { code, principal, autoencoder, sparse, empty } in &map.widths {
        let [p, a, s, e] = [principal, autoencoder, sparse, empty].map(|share| percent(*share));
        let wide = format!("sparsity {}", map.sparsity).len();
        let _ = writeln!(text, "{code:>19}  {p:>20}  {a:>11}  {s:>wide$}  {e:>21}");
    }
    text
}

/// As a table.
pub fn csv(map: &Map) -> Result<String> {
    let mut sheet = ::csv::Writer::from_writer(Vec::new());
    let label = map.labelled.then_some("label");
    let head = ["row", "series", "score", "flagged"].into_iter().chain(label);
    sheet.write_record(head.chain(["autoencoder.1", "autoencoder.2", "pca.1", "pca.2"]))?;
    for Point { row, series, score, flagged, labelled, places, .. } in &map.points {
        let bit = |is: bool| u8::from(is).to_string();
        let label = map.labelled.then(|| bit(*labelled));
        let head = [row.to_string(), series.clone(), score.to_string(), bit(*flagged)].into_iter().chain(label);
        sheet.write_record(head.chain(places.as_flattened().iter().map(f32::to_string)))?;
    }
    Ok(String::from_utf8(sheet.into_inner()?)?)
}

/// The edges of a map, without what lies far out: left, right, bottom, top.
pub fn extent(map: &Map, which: usize) -> [f32; 4] {
    let edges = [0, 1].map(|axis| {
        let mut all: Vec<f32> = map.points.iter().map(|point| point.places[which][axis]).collect();
        all.sort_by(f32::total_cmp);
        let out = (all.len() as f64 * BEYOND) as usize;
        let (from, to) = (all.get(out).copied().unwrap_or(0.0), all.iter().rev().nth(out).copied().unwrap_or(1.0));
        let margin = 0.08 * (to - from).max(1e-6);
        [from - margin, to + margin]
    });
    [edges[0][0], edges[0][1], edges[1][0], edges[1][1]]
}

/// A page.
pub fn html(map: &Map, by: By) -> Result<String> {
    let title = escape(&format!("residua project: {}", map.title));
    let shown = shown(&map.points);
    let mut series: Vec<&str> = shown.iter().map(|point| point.series.as_str()).collect();
    series.sort_unstable();
    series.dedup();
    let number = |v: f64| brief(v).parse().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number);
    let row = |point: &&Point| {
        let at = series.binary_search(&point.series.as_str()).unwrap_or_default();
        let head = [json!(point.row), json!(at), number(point.score), json!(u8::from(point.flagged))];
        let places = point.places.as_flattened().iter().map(|v| number(f64::from(*v)));
        let label = std::iter::once(json!(u8::from(point.labelled)));
        Value::Array(
            head.into_iter().chain(label).chain(places).chain(point.values.iter().map(|v| number(*v))).collect(),
        )
    };
    let data = json!({
        "sensors": map.sensors,
        "series": series,
        "rows": shown.iter().map(row).collect::<Vec<_>>(),
        "extents": [extent(map, 0), extent(map, 1)],
        "labelled": map.labelled,
    });
    // Nothing in the data can end the element that holds it.
    let data = serde_json::to_string(&data)?.replace("</", "<\\/");
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}\
         .maps{{display:flex;gap:1em;flex-wrap:wrap}}figure{{margin:0;flex:1 1 420px}}canvas{{width:100%;border:1px solid #ccd4dc}}\
         #tip{{position:absolute;background:#fff;border:1px solid #888;padding:.4em .7em;font:12px/1.35 monospace;white-space:pre;max-height:70vh;overflow:hidden;pointer-events:none}}</style>\
         <h1>{title}</h1><p>{} of {} scored records, each as a point on both maps: near to those that it is like. Those far out are drawn at the edge. \
         Colour: <select id=by>",
        shown.len(),
        map.points.len()
    );
    for (option, value) in [(By::Score, "score"), (By::Series, "series"), (By::Time, "time"), (By::Label, "label")] {
        write!(page, "<option value={value}{}>{value}", if option == by { " selected" } else { "" })?;
    }
    page += "</select> <span id=means></span><div class=maps>";
    for name in map.names {
        write!(page, "<figure><figcaption>{name}</figcaption><canvas width=840 height=640></canvas></figure>")?;
    }
    write!(
        page,
        "</div><div id=tip hidden></div><h2>Figures</h2><table><tr><th><th>{}<th>{}",
        map.names[0], map.names[1]
    )?;
    for (name, [a, b]) in rows(map) {
        write!(page, "<tr><td>{name}<td class=number>{a}<td class=number>{b}")?;
    }
    write!(page, "</table><p>{}<h2>How many numbers it takes</h2>{}", notes(map), super::drawing::widths(map)?)?;
    write!(
        page,
        "<table><tr><th>numbers in the code<th>principal components<th>autoencoder<th>sparsity {}<th>of it next to nothing",
        map.sparsity
    )?;
    for Width { code, principal, autoencoder, sparse, empty } in &map.widths {
        write!(page, "<tr><td class=number>{code}")?;
        for share in [principal, autoencoder, sparse, empty] {
            write!(page, "<td class=number>{:.1} %", 100.0 * share)?;
        }
    }
    write!(page, "</table><script type=application/json id=data>{data}</script><script>{SCRIPT}</script>")?;
    Ok(page)
}

fn is_strange(point: &Point) -> bool {
    point.flagged || point.labelled
}

/// Those that a page holds, in order.
fn shown(points: &[Point]) -> Vec<&Point> {
    let strange = points.iter().filter(|point| is_strange(point)).count();
    let room = SHOWN_MAX / 2;
    let rooms = [SHOWN_MAX - strange.min(room), room];
    let counts = [points.len() - strange, strange];
    let (mut seen, mut shown) = ([0; 2], Vec::new());
    for point in points {
        let kind = usize::from(is_strange(point));
        if is_kept(seen[kind], counts[kind], rooms[kind]) {
            shown.push(point);
        }
        seen[kind] += 1;
    }
    shown
}
