//! Every metric that residua exports.

use std::collections::BTreeSet;

use residua::metrics::{Metrics, MetricsSettings, Outcomes};

/// Name, type and labels (but `le` and `topic`) of every metric, those of the process included.
pub fn exported() -> BTreeSet<(String, String, String)> {
    let metrics = Metrics::new("0", "sensors", &["x"], &["y"], &MetricsSettings { sensors: 1 }).unwrap();
    let mut outcomes = Outcomes::default();
    outcomes.add_anomaly("y", "flow");
    metrics.settled("0", &outcomes);
    metrics.model("0", 1.0, true);
    metrics.drifted(1, [("flow", 0.5)].into_iter());
    metrics.consumed("0", 1);
    metrics.lag("0", 1);
    metrics.rebalanced("0", 1);
    metrics.series("0", 1);
    metrics.open_incidents("0", 1);
    metrics.astray("0", 1);
    let scraped = String::from_utf8(metrics.scrape().unwrap()).unwrap();
    let types = scraped.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| {
            let sample = scraped.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no sample of {name}"));
            let labels = sample.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
            let labels =
                labels.split(',').filter_map(|l| l.split('=').next()).filter(|l| !["", "le", "topic"].contains(l));
            (name.to_owned(), kind.to_owned(), labels.collect::<Vec<_>>().join(","))
        })
        .collect()
}
