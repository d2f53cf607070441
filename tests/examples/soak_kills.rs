//! `cargo xtask soak --kills [KILLS [CONTAINERS [SEED]]]`: containers that write, clients that work, and a daemon that is
//! killed at random moments ([`ferry_testkit::siege`]).

use std::process::ExitCode;
use std::time::Instant;

use ferry_testkit::siege;

const USAGE: &str = "soak --kills [KILLS [CONTAINERS [SEED]]]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |text| text.parse());
    let (Ok(kills), Ok(containers), Ok(seed)) = (number(0, 200), number(1, 50), number(2, 1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let begin = Instant::now();
    let outcome = siege::lay(usize::try_from(containers).unwrap(), kills, seed.max(1));
    println!(
        "{containers} containers, {} kills in {:.0} s: the same processes after each, back within {:.2?}; {} exit codes and {} \
         lines of logs right, nothing left",
        outcome.kills,
        begin.elapsed().as_secs_f64(),
        outcome.back,
        outcome.ended,
        outcome.lines
    );
    ExitCode::SUCCESS
}
