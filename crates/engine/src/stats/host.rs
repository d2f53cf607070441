//! The host's own times: what a container's are a share of.

/// `/proc/stat` counts in USER_HZ, which is 100 on every architecture Ferry runs on.
const NANOSECONDS_A_TICK: u64 = 10_000_000;
/// user, nice, system, idle, iowait, irq, softirq: what Docker adds up (proc_stat(5)).
const FIELDS: usize = 7;

/// Nanoseconds of all CPUs since boot, idle included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub total: u64,
    pub cpus: u32,
}

impl Times {
    /// Nothing at all where there is no `/proc/stat`.
    pub fn read() -> Self {
        std::fs::read_to_string("/proc/stat").map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut times = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("cpu") => {
                    let ticks: u64 = words.take(FIELDS).filter_map(|word| word.parse::<u64>().ok()).sum();
                    times.total = ticks.saturating_mul(NANOSECONDS_A_TICK);
                }
                Some(name) if name.starts_with("cpu") => times.cpus += 1,
                // The CPUs come first; the rest is long.
                _ => break,
            }
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_states_of_all_processors_are_added_up() {
        let text = "cpu  1 2 3 4 5 6 7 800 9 9\ncpu0 0 0\ncpu1 0 0\nintr 1 2 3\ncpu2 0\n";
        let expected = Times {
            total: 280_000_000,
            cpus: 2,
        };
        assert_eq!(Times::parse(text), expected);
        assert_eq!(Times::parse(""), Times::default());
    }
}
