//! Draws curves from reports, as SVG.

use std::{fmt, ops::Range, path::PathBuf};

use plotters::{
    chart::ChartContext,
    coord::{
        ranged1d::{AsRangedCoord, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::*,
};
use serde::Serialize;

use super::report::{LoadReport, Offered, Step};
use crate::error::CliError;

/// Width and height of a plot, in pixels.
const SIZE: (u32, u32) = (900, 520);

/// A colour for each line. Most colour-blind people can tell these apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// The files that were drawn.
#[derive(Debug, Serialize)]
pub(super) struct Drawn {
    pub(super) files: Vec<PathBuf>,
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        write!(f, "drawn: {}", files.join(", "))
    }
}

/// One line of a plot: a named series of points.
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The texts and axes around a plot's lines.
struct Frame<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
}

fn failed(error: impl fmt::Display) -> CliError {
    CliError::internal(format!("the plot cannot be drawn: {error}"))
}

/// Reads a quantile of a step's latencies, in milliseconds.
type Quantile = fn(&Step) -> f64;

/// Latency over the rate at which jobs arrive, from the open loops of `reports`. The scale is
/// logarithmic; each report has three quantiles.
///
/// # Errors
/// When no report contains an open loop.
pub(super) fn latency(reports: &[LoadReport]) -> Result<String, CliError> {
    let quantiles: [(&str, Quantile); 3] = [
        ("p50", |step| step.latency_ms.p50),
        ("p99", |step| step.latency_ms.p99),
        ("p99.9", |step| step.latency_ms.p999),
    ];
    let mut lines = Vec::new();
    for report in reports {
        for (name, quantile) in quantiles {
            let mut points: Vec<(f64, f64)> = report
                .steps
                .iter()
                .filter(|step| step.signed() > 0)
                .filter_map(|step| match step.offered {
                    Offered::Open { per_second } => Some((per_second, quantile(step).max(1.0))),
                    Offered::Closed { .. } => None,
                })
                .collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            let name =
                if report.label.is_empty() { name.to_owned() } else { format!("{}, {name}", report.label) };
            lines.push(Series { name, points });
        }
    }
    lines.retain(|line| !line.points.is_empty());
    let frame = Frame {
        title: "Latency from when a job was due until its signature was verified",
        x: "jobs arriving per second",
        y: "milliseconds",
    };
    let (rate, slowest) = largest(&lines)?;
    draw(&frame, &lines, 0.0..rate * 1.05, (1.0..slowest * 1.5).log_scale())
}

/// The highest rate of signatures in each report over the deployment's number of workers. A second
/// line shows linear scaling from the smallest deployment.
///
/// # Errors
/// When no report states its number of workers.
pub(super) fn scaling(reports: &[LoadReport]) -> Result<String, CliError> {
    let mut measured: Vec<(f64, f64)> = reports
        .iter()
        .filter_map(|report| {
            let workers = report.settings.workers_per_party?;
            Some((f64::from(workers), report.most_signed_per_s()))
        })
        .collect();
    measured.sort_by(|one, other| one.0.total_cmp(&other.0).then(other.1.total_cmp(&one.1)));
    // Of several reports with the same number of workers, the best one counts.
    measured.dedup_by(|later, earlier| later.0.total_cmp(&earlier.0).is_eq());
    let Some((fewest, first)) = measured.first().copied() else {
        return Err(CliError::input("no report says how many workers there were (--workers)"));
    };
    let in_proportion = measured.iter().map(|(workers, _)| (*workers, first * workers / fewest)).collect();
    let lines = [
        Series { name: "measured".to_owned(), points: measured },
        Series { name: "in proportion".to_owned(), points: in_proportion },
    ];
    let frame =
        Frame { title: "The most signatures per second", x: "workers per party", y: "signatures per second" };
    let (most, fastest) = largest(&lines)?;
    draw(&frame, &lines, 0.0..most + 1.0, 0.0..fastest * 1.1)
}

/// The largest x and y of all points.
fn largest(lines: &[Series]) -> Result<(f64, f64), CliError> {
    let points = || lines.iter().flat_map(|line| &line.points);
    if points().next().is_none() {
        return Err(CliError::input("the reports hold nothing that belongs into this plot"));
    }
    Ok((points().map(|point| point.0).fold(1.0, f64::max), points().map(|point| point.1).fold(1.0, f64::max)))
}

/// The whole plot, as SVG.
fn draw<Y>(frame: &Frame<'_>, lines: &[Series], x: Range<f64>, y: Y) -> Result<String, CliError>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let mut builder = ChartBuilder::on(&area);
        builder
            .caption(frame.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(72);
        draw_lines(builder.build_cartesian_2d(x, y).map_err(failed)?, frame, lines)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn draw_lines<'a, 'b: 'a, Y>(
    mut chart: ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>,
    frame: &Frame<'_>,
    lines: &[Series],
) -> Result<(), CliError>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(frame.x)
        .y_desc(frame.y)
        .label_style(("sans-serif", 14))
        .draw()
        .map_err(failed)?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = ShapeStyle::from(colour).stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))
            .map_err(failed)?
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart
            .draw_series(line.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))
            .map_err(failed)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::load::report::{Machine, Quantiles, Settings, Timing};

    fn report(workers: Option<u32>, offered: &[(Offered, f64)]) -> LoadReport {
        let timing = Timing { warm_up_s: 1.0, measured_s: 10.0, job_timeout_s: 30.0 };
        let settings = Settings {
            api_url: String::new(),
            wallets: 1,
            workers_per_party: workers,
            pairs: Vec::new(),
            message_bytes: 64,
            verified_share: 1.0,
            max_open_jobs: 10,
            timing,
        };
        let mut report = LoadReport::new("two workers".to_owned(), Machine::read(), settings);
        for (offered, rate) in offered {
            report.steps.push(Step {
                offered: *offered,
                due: 10,
                outcomes: [("signed".to_owned(), 10)].into(),
                verified: 10,
                signed_per_s: *rate,
                sustained: true,
                latency_ms: Quantiles {
                    min: 10.0,
                    mean: 20.0,
                    p50: 20.0,
                    p90: 30.0,
                    p99: 40.0,
                    p999: 50.0,
                    max: 60.0,
                },
                service_ms: Quantiles {
                    min: 10.0,
                    mean: 20.0,
                    p50: 20.0,
                    p90: 30.0,
                    p99: 40.0,
                    p999: 50.0,
                    max: 60.0,
                },
                signed_in_each_s: vec![10; 10],
                busy_cores: Some(1.5),
                processes: Vec::new(),
            });
        }
        report
    }

    #[test]
    fn curves_are_drawn_from_what_is_there() {
        let open = |per_second| (Offered::Open { per_second }, per_second);
        let sweep = report(Some(2), &[open(20.0), open(60.0)]);
        let svg = latency(std::slice::from_ref(&sweep)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("two workers, p99.9") && svg.contains("polyline"));
        let saturated = |workers, rate| report(Some(workers), &[(Offered::Closed { in_flight: 8 }, rate)]);
        let svg = scaling(&[saturated(1, 40.0), saturated(2, 70.0)]).unwrap();
        assert!(svg.contains("in proportion"));
    }

    #[test]
    fn what_is_not_there_is_not_drawn() {
        assert!(latency(&[report(None, &[(Offered::Closed { in_flight: 1 }, 10.0)])]).is_err());
        assert!(scaling(&[report(None, &[(Offered::Closed { in_flight: 1 }, 10.0)])]).is_err());
    }
}
