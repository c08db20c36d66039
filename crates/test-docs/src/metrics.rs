//! Parses what processes show at `/metrics`, more strictly than a collector does, and compares it
//! with `docs/metrics.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{in_repository, linked};

/// The metrics that a process shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposition {
    /// The kind and labels of each metric, by its name.
    pub families: BTreeMap<String, Family>,
    /// The value of each series, by its name and labels as written, with the labels in order.
    pub samples: BTreeMap<String, f64>,
    /// The names of the metrics in the order in which they are shown, and their help.
    pub help: Vec<(String, String)>,
}

/// A metric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The labels of its series, without a histogram's `le`.
    pub labels: BTreeSet<String>,
}

impl Exposition {
    /// Parses Prometheus' text format, version 0.0.4.
    ///
    /// # Errors
    /// When a line is malformed, or a name or label breaks Prometheus' rules. When a series occurs
    /// twice, or before its help and type. When a histogram's buckets decrease, or do not end with
    /// its count.
    pub fn parse(text: &str) -> Result<Self> {
        let mut shown = Self::default();
        let mut helped = BTreeSet::new();
        ensure!(text.ends_with('\n'), "the last line does not end");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').context("a help without a text")?;
                ensure!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
                shown.help.push((name.to_owned(), help.to_owned()));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').context("a type without a kind")?;
                ensure!(helped.contains(name) && is_name(name), "{line}");
                ensure!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                ensure!((kind == "counter") == name.ends_with("_total"), "{line}");
                let family = Family { kind: kind.to_owned(), labels: BTreeSet::new() };
                ensure!(shown.families.insert(name.to_owned(), family).is_none(), "{name} comes twice");
            } else {
                shown.sample(line).with_context(|| line.to_owned())?;
            }
        }
        shown.check_histograms()?;
        Ok(shown)
    }

    fn sample(&mut self, line: &str) -> Result<()> {
        let (series, value) = line.rsplit_once(' ').context("a sample without a value")?;
        let value: f64 = value.parse()?;
        ensure!(value.is_finite(), "not a number");
        let (name, labels) = match series.split_once('{') {
            None => (series, BTreeMap::new()),
            Some((name, labels)) => {
                (name, parse_labels(labels.strip_suffix('}').context("labels do not end")?)?)
            }
        };
        ensure!(value >= 0.0 || name == "duet_clock_skew_seconds", "only a difference is negative");
        let part = ["_bucket", "_sum", "_count"].into_iter().find_map(|part| name.strip_suffix(part));
        let family = match part.and_then(|name| self.families.get_mut(name)) {
            Some(family) if family.kind == "histogram" => family,
            _ => self.families.get_mut(name).context("it has no type")?,
        };
        family.labels.extend(labels.keys().filter(|label| *label != "le").cloned());
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        let series =
            if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) };
        ensure!(self.samples.insert(series, value).is_none(), "it comes twice");
        Ok(())
    }

    fn check_histograms(&self) -> Result<()> {
        for (name, _) in self.families.iter().filter(|(_, family)| family.kind == "histogram") {
            let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for (series, count) in &self.samples {
                let Some(labels) = series.strip_prefix(&format!("{name}_bucket{{")) else { continue };
                let labels = labels.strip_suffix('}').context("labels do not end")?.split(',');
                let (bound, others): (Vec<&str>, Vec<&str>) =
                    labels.partition(|label| label.starts_with("le="));
                let [bound] = bound[..] else { bail!("{series}: a bucket without a bound") };
                let bound = bound.trim_start_matches("le=").parse::<f64>()?;
                buckets.entry(others.join(",")).or_default().push((bound, *count));
            }
            ensure!(!buckets.is_empty(), "{name} has no buckets");
            for (labels, mut bounds) in buckets {
                bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
                ensure!(bounds.is_sorted_by(|a, b| a.1 <= b.1), "{name}{{{labels}}}: buckets fall");
                let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
                let count = self.value(&format!("{name}_count{labels}"))?;
                ensure!(bounds.last() == Some(&(f64::INFINITY, count)), "{name}{labels}: {bounds:?}");
                self.value(&format!("{name}_sum{labels}"))?;
            }
        }
        Ok(())
    }

    /// The rows of its metrics for `docs/metrics.md`: name, type, labels, meaning and what to watch
    /// for. The last two are parts of the help.
    #[must_use]
    pub fn rows(&self) -> Vec<[String; 5]> {
        let row = |(name, help): &(String, String)| {
            let family = self.families.get(name).cloned().unwrap_or_default();
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
            let help = help.trim_end_matches('.');
            let (meaning, watch) = help.split_once(". Watch for: ").unwrap_or((help, "–"));
            [format!("`{name}`"), family.kind, labels, linked(meaning), linked(watch)]
        };
        self.help.iter().map(row).collect()
    }

    /// The value of one series: `name`, or `name{label=value,…}` with labels in order.
    ///
    /// # Errors
    /// When it is not shown.
    pub fn value(&self, series: &str) -> Result<f64> {
        self.samples.get(series).copied().with_context(|| format!("{series} is not shown"))
    }

    /// The growth since `before` of each series of the metrics in `names`. Series without growth
    /// are left out.
    #[must_use]
    pub fn growth(&self, before: &Self, names: &[&str]) -> BTreeMap<String, f64> {
        let wanted = |series: &str| names.contains(&series.split('{').next().unwrap_or_default());
        self.samples
            .iter()
            .filter(|(series, _)| wanted(series))
            .map(|(series, now)| (series.clone(), now - before.samples.get(series).unwrap_or(&0.0)))
            .filter(|(_, growth)| *growth != 0.0)
            .collect()
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Parses `label="value"` and so on. Our values need no escaping.
fn parse_labels(text: &str) -> Result<BTreeMap<String, String>> {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").context("a label without a value")?;
        let (value, after) = value.split_once('"').context("a value without an end")?;
        ensure!(is_name(name) && !value.contains('\\'), "{name}");
        ensure!(labels.insert(name.to_owned(), value.to_owned()).is_none(), "{name} comes twice");
        rest = after.strip_prefix(',').unwrap_or(after);
        ensure!(after.is_empty() || after.starts_with(','), "{after}");
    }
    Ok(labels)
}

/// The metrics in `docs/metrics.md`, by the heading of their table.
///
/// # Errors
/// When the document cannot be read, or when a row has another form.
pub fn documented() -> Result<BTreeMap<String, BTreeMap<String, Family>>> {
    let text = fs::read_to_string(in_repository("docs/metrics.md"))?;
    let mut tables: BTreeMap<String, BTreeMap<String, Family>> = BTreeMap::new();
    let mut heading = "";
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("## ") {
            heading = next;
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = row.split(" | ").collect();
        let [name, kind, labels, _, _] = cells[..] else { bail!("{line}: five cells are wanted") };
        let labels =
            labels.split(", ").filter(|label| *label != "–").map(|label| label.trim_matches('`').to_owned());
        let family = Family { kind: kind.to_owned(), labels: labels.collect() };
        let name = name.trim_end_matches('`').to_owned();
        let table = tables.entry(heading.to_owned()).or_default();
        ensure!(table.insert(name.clone(), family).is_none(), "{name} has two rows");
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "# HELP a_total Some.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n\
        # HELP d Others.\n# TYPE d histogram\nd_sum 3.0\nd_count 2\nd_bucket{le=\"1.0\"} 1\nd_bucket{le=\"+Inf\"} 2\n";

    #[test]
    fn what_is_well_formed_is_read() {
        let shown = Exposition::parse(SHOWN).unwrap();
        assert_eq!(shown.value("a_total{b=c}").unwrap(), 1.0);
        assert_eq!(shown.families["d"], Family { kind: "histogram".to_owned(), labels: BTreeSet::new() });
        assert_eq!(shown.growth(&Exposition::default(), &["a_total"]).len(), 1);
    }

    #[test]
    fn what_is_malformed_is_not() {
        for (right, wrong) in [
            ("# HELP a_total Some.\n", ""),
            ("# TYPE a_total counter\n", ""),
            ("a_total counter", "a_total gauge"),
            ("b=\"c\"", "b=c"),
            ("b=\"c\"", "b-=\"c\""),
            ("} 1\n#", "} one\n#"),
            ("} 1\n#", "} -1\n#"),
            ("} 1\n#", "} 1\na_total{b=\"c\"} 1\n#"),
            ("d_sum 3.0\n", ""),
            ("d_count 2", "d_count 3"),
            ("le=\"1.0\"} 1", "le=\"1.0\"} 3"),
        ] {
            let broken = SHOWN.replacen(right, wrong, 1);
            assert_ne!(broken, SHOWN, "{right}");
            assert!(Exposition::parse(&broken).is_err(), "{broken}");
        }
    }

    /// Names of metrics in a rule or dashboard: all that look like one of ours or of the process.
    fn named(text: &str) -> BTreeSet<&str> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("duet_") || word.starts_with("process_"))
            .collect()
    }

    #[test]
    fn rules_and_dashboard_use_metrics_that_there_are() {
        let known: BTreeSet<String> = documented()
            .unwrap()
            .into_values()
            .flatten()
            .flat_map(|(name, family)| match family.kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")).to_vec(),
                _ => vec![name],
            })
            .collect();
        let folder = in_repository("deploy/monitoring");
        for file in ["alerts.yaml", "dashboard.json"] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            let names = named(&text);
            assert!(names.len() > 10, "{file}: {names:?}");
            for name in names {
                assert!(known.contains(name), "{file} uses {name}, which docs/metrics.md does not have");
            }
        }
        let dashboard = fs::read_to_string(folder.join("dashboard.json")).unwrap();
        let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
        let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
        for panel in panels {
            for target in panel["targets"].as_array().unwrap() {
                assert!(!named(target["expr"].as_str().unwrap()).is_empty(), "{panel}");
            }
        }
    }
}
