//! The Markdown table that goes into docs/benchmarks.md. The first engine is Ferry, the second, if any, Docker.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What the project asks of itself.
#[derive(Clone, Copy)]
pub enum Bar {
    /// So many times faster than Docker.
    Times(f64),
    /// No more than this.
    Most(f64),
    /// Of what is the better the more there is: at least so much of Docker's.
    Share(f64),
    None,
}

#[derive(Clone, Copy)]
pub enum Unit {
    Milliseconds,
    Microseconds,
    MiB,
    MB,
    Gigabits,
}

pub struct Row {
    what: String,
    unit: Unit,
    bar: Bar,
    samples: Vec<Vec<f64>>,
}

impl Row {
    /// `samples`: those of Ferry first.
    pub fn new(what: &str, unit: Unit, bar: Bar, mut samples: Vec<Vec<f64>>) -> Self {
        for engine in &mut samples {
            engine.sort_by(f64::total_cmp);
        }
        Self {
            what: what.to_owned(),
            unit,
            bar,
            samples,
        }
    }

    /// The row as a line of the table.
    pub fn line(&self) -> String {
        let ferry = self
            .samples
            .first()
            .map_or_else(String::new, |samples| self.cell(samples));
        let docker = self
            .samples
            .get(1)
            .map_or_else(|| "not measured".to_owned(), |samples| self.cell(samples));
        let ratio = self
            .ratio()
            .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.1}"));
        let (bar, verdict) = match self.bar {
            Bar::None => ("–".to_owned(), "–"),
            Bar::Times(times) => (
                format!("{times:.0} ×"),
                self.ratio().map_or("–", |ratio| verdict(ratio >= times)),
            ),
            Bar::Share(share) => (
                format!("≥ {share:.1} × Docker"),
                self.ratio().map_or("–", |ratio| verdict(1.0 / ratio >= share)),
            ),
            Bar::Most(most) => {
                let met = self.samples.first().map(|samples| median(samples) <= most);
                (format!("≤ {most:.0} {}", self.unit()), met.map_or("–", verdict))
            }
        };
        format!("| {} | {ferry} | {docker} | {ratio} | {bar} | {verdict} |", self.what)
    }

    /// How many times more Docker takes.
    fn ratio(&self) -> Option<f64> {
        let ratio = median(self.samples.get(1)?) / median(self.samples.first()?);
        // A difference may be nothing, or less.
        (ratio.is_finite() && ratio > 0.0).then_some(ratio)
    }

    fn cell(&self, sorted: &[f64]) -> String {
        let (unit, middle) = (self.unit(), median(sorted));
        match sorted {
            [] | [_] => format!("{middle:.1} {unit}"),
            [least, .., most] => format!("**{middle:.1}** {unit} ({least:.1}–{most:.1})"),
        }
    }

    fn unit(&self) -> &'static str {
        match self.unit {
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "µs",
            Unit::MiB => "MiB",
            Unit::MB => "MB",
            Unit::Gigabits => "Gbit/s",
        }
    }
}

pub fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

pub fn page(rows: &[Row], heading: &str) -> String {
    page_beside(rows, heading, "Docker Engine")
}

pub fn page_beside(rows: &[Row], heading: &str, other: &str) -> String {
    let first = other.split_whitespace().next().unwrap_or_default();
    let mut page = format!("Measured {heading}. Median (least–most).\n\n");
    let _ = writeln!(
        page,
        "| what | Ferry | {other} | {first} ÷ Ferry | asked for | |\n|---|---|---|---|---|---|"
    );
    for row in rows {
        let _ = writeln!(page, "{}", row.line());
    }
    page
}

/// Replaces what is between the two markers of that name.
pub fn write(path: &Path, name: &str, page: &str) -> Result<()> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let Some((before, rest)) = text.split_once(&begin) else {
        bail!("{} has no {begin}", path.display())
    };
    let Some((_, after)) = rest.split_once(&end) else {
        bail!("{} has no {end}", path.display())
    };
    fs::write(path, format!("{before}{begin}\n{page}{end}{after}")).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Bar, Row, Unit, median};

    #[test]
    fn medians_of_even_and_odd_numbers() {
        assert!((median(&[1.0, 2.0, 9.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[1.0, 2.0, 4.0, 9.0]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_line_says_whether_the_bar_is_met() {
        let row = Row::new(
            "x",
            Unit::Milliseconds,
            Bar::Times(20.0),
            vec![vec![3.0, 1.0, 2.0], vec![30.0, 50.0, 40.0]],
        );
        assert_eq!(
            row.line(),
            "| x | **2.0** ms (1.0–3.0) | **40.0** ms (30.0–50.0) | 20.0 | 20 × | met |"
        );
        let row = Row::new("y", Unit::MiB, Bar::Most(1.0), vec![vec![1.5]]);
        assert_eq!(row.line(), "| y | 1.5 MiB | not measured | – | ≤ 1 MiB | **missed** |");
        let row = Row::new("z", Unit::Gigabits, Bar::Share(0.9), vec![vec![9.5], vec![10.0]]);
        assert_eq!(
            row.line(),
            "| z | 9.5 Gbit/s | 10.0 Gbit/s | 1.1 | ≥ 0.9 × Docker | met |"
        );
        let row = Row::new("z", Unit::Gigabits, Bar::Share(0.9), vec![vec![8.5], vec![10.0]]);
        assert!(row.line().ends_with("**missed** |"));
    }
}
