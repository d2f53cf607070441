//! Samples and their table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::super::table::{median, verdict};
use super::engines::Engine;
use super::make::Image;
use super::options::Op;

/// The most memory that Ferry's daemon may have resident, in MiB.
const MOST_MEMORY: f64 = 80.0;

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Seconds until the command ended.
    pub wall: f64,
    /// Seconds until the file system was written back as well, and removed files were gone.
    pub settled: f64,
    /// Processor seconds of daemon and command.
    pub cpu: f64,
    /// MiB.
    pub peak: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wall,
            settled,
            cpu,
            peak,
        } = self;
        write!(
            f,
            "{wall:.2} s, settled {settled:.2} s, {cpu:.2} CPU s, peak {peak:.0} MiB"
        )
    }
}

/// What a line of the table shows.
#[derive(Clone, Copy, PartialEq)]
enum Measure {
    Wall,
    Settled,
    Cpu,
    Peak,
}

impl Measure {
    const ALL: [Self; 4] = [Self::Wall, Self::Settled, Self::Cpu, Self::Peak];

    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Wall => sample.wall,
            Self::Settled => sample.settled,
            Self::Cpu => sample.cpu,
            Self::Peak => sample.peak,
        }
    }

    fn name(self, op: Op) -> &'static str {
        match self {
            Self::Wall => "seconds",
            Self::Settled if op == Op::Remove => "with files gone, synced",
            Self::Settled => "with the sync",
            Self::Cpu => "CPU seconds",
            Self::Peak => "peak memory, MiB",
        }
    }

    /// Whether Ferry's part is large enough to be divided by: processor time is counted in hundredths of a second.
    fn tells(self, ferry: &[Sample]) -> bool {
        self != Self::Cpu || ferry.iter().all(|sample| sample.cpu >= 0.05)
    }

    fn show(self, value: f64) -> String {
        if self == Self::Peak {
            format!("{value:.0}")
        } else {
            format!("{value:.2}")
        }
    }
}

/// How many times faster than whom the project asks Ferry to be.
fn asked(image: Image, op: Op, measure: Measure) -> Option<(Engine, f64)> {
    match (image, op, measure) {
        (Image::B, Op::Pull, Measure::Wall | Measure::Settled) => Some((Engine::Ctr, 3.0)),
        (Image::B, Op::Pull, Measure::Cpu) => Some((Engine::Ctr, 1.0)),
        (Image::C, Op::Pull, Measure::Wall | Measure::Settled) => Some((Engine::Ctr, 1.5)),
        (Image::B, Op::Push | Op::Save | Op::Load, Measure::Wall | Measure::Settled) => Some((Engine::Docker, 3.0)),
        (Image::B, Op::Remove, Measure::Wall | Measure::Settled) => Some((Engine::Docker, 2.0)),
        _ => None,
    }
}

/// The samples of each engine, by round.
type Rounds = Vec<Vec<Sample>>;

pub struct Results {
    engines: Vec<Engine>,
    samples: BTreeMap<(Image, Op), Rounds>,
}

impl Results {
    /// Ferry is the first engine.
    pub fn new(engines: &[Engine]) -> Self {
        Self {
            engines: engines.to_vec(),
            samples: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, image: Image, op: Op, engine: Engine, sample: Sample) {
        let count = self.engines.len();
        let rounds = self
            .samples
            .entry((image, op))
            .or_insert_with(|| vec![Vec::new(); count]);
        if let Some(at) = self.engines.iter().position(|other| *other == engine) {
            rounds[at].push(sample);
        }
    }

    pub fn table(&self) -> String {
        let names: Vec<_> = self.engines.iter().map(|engine| engine.name()).collect();
        let columns = "---|".repeat(names.len() + 4);
        let mut table = format!("| what | | {} | asked for | |\n|{columns}\n", names.join(" | "));
        for ((image, op), rounds) in &self.samples {
            for measure in Measure::ALL {
                let what = match measure {
                    Measure::Wall => format!("{} of ({})", op.name(), image.letter()),
                    _ => String::new(),
                };
                let _ = write!(table, "| {what} | {} ", measure.name(*op));
                for (at, samples) in rounds.iter().enumerate() {
                    let _ = write!(table, "| {}", cell(measure, samples));
                    if at > 0 && measure.tells(&rounds[0]) {
                        let _ = write!(table, ", {:.1} ×", downwards(ratio(measure, &rounds[0], samples)));
                    }
                    table.push(' ');
                }
                let (asked, verdict) = self.judge(*image, *op, measure, rounds);
                let _ = writeln!(table, "| {asked} | {verdict} |");
            }
        }
        table
    }

    fn judge(&self, image: Image, op: Op, measure: Measure, rounds: &Rounds) -> (String, &'static str) {
        if measure == Measure::Peak {
            // Of all rounds, not of the one in the middle.
            let most = rounds[0].iter().map(|sample| sample.peak).fold(0.0, f64::max);
            return (format!("≤ {MOST_MEMORY:.0} MiB"), verdict(most <= MOST_MEMORY));
        }
        let Some((engine, times)) = asked(image, op, measure) else {
            return ("–".to_owned(), "–");
        };
        let asked = format!("{times} × {}", engine.name());
        let at = self.engines.iter().position(|other| *other == engine);
        let met = at.map(|at| ratio(measure, &rounds[0], &rounds[at]) >= times);
        (asked, met.map_or("–", verdict))
    }
}

/// To one digit, never more than it is: 2.97 is not shown as the three it misses.
fn downwards(ratio: f64) -> f64 {
    (ratio * 10.0).floor() / 10.0
}

/// Median, least and most.
fn cell(measure: Measure, samples: &[Sample]) -> String {
    let mut values: Vec<f64> = samples.iter().map(|sample| measure.of(sample)).collect();
    values.sort_by(f64::total_cmp);
    let middle = measure.show(median(&values));
    match values[..] {
        [least, .., most] => format!("**{middle}** ({}–{})", measure.show(least), measure.show(most)),
        _ => middle,
    }
}

/// How many times as much as Ferry in the same round: the median of these.
fn ratio(measure: Measure, ferry: &[Sample], other: &[Sample]) -> f64 {
    let pairs = ferry.iter().zip(other);
    let mut ratios: Vec<f64> = pairs
        .map(|(ferry, other)| measure.of(other) / measure.of(ferry))
        .collect();
    ratios.sort_by(f64::total_cmp);
    median(&ratios)
}

#[cfg(test)]
mod tests {
    use super::{Engine, Image, Op, Results, Sample};

    #[test]
    fn ratios_are_of_pairs_and_judged_against_the_engine_that_is_named() {
        let mut results = Results::new(&[Engine::Ferry, Engine::Ctr]);
        for (ferry, ctr) in [(1.0, 4.0), (2.0, 4.0), (1.0, 3.0)] {
            let sample = |wall, peak| Sample {
                wall,
                settled: wall + 1.0,
                cpu: wall,
                peak,
            };
            results.add(Image::B, Op::Pull, Engine::Ferry, sample(ferry, 81.0));
            results.add(Image::B, Op::Pull, Engine::Ctr, sample(ctr, 162.0));
        }
        let table = results.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[2],
            "| pull of (b) | seconds | **1.00** (1.00–2.00) | **4.00** (3.00–4.00), 3.0 × | 3 × ctr | met |"
        );
        // 5/2, 5/3 and 4/2: two and no more.
        assert!(lines[3].contains("2.0 × | 3 × ctr | **missed** |"), "{table}");
        assert!(lines[4].ends_with("| 1 × ctr | met |"), "{table}");
        assert!(lines[5].ends_with("2.0 × | ≤ 80 MiB | **missed** |"), "{table}");
    }

    #[test]
    fn an_engine_that_did_not_run_is_no_verdict() {
        let mut results = Results::new(&[Engine::Ferry]);
        let sample = Sample {
            wall: 1.0,
            settled: 1.0,
            cpu: 1.0,
            peak: 1.0,
        };
        results.add(Image::B, Op::Save, Engine::Ferry, sample);
        let table = results.table();
        assert!(
            table.contains("| save of (b) | seconds | 1.00 | 3 × Docker Engine | – |"),
            "{table}"
        );
    }
}
