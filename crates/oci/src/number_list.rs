//! Lists of CPUs and memory nodes as the kernel writes them (cpuset(7), "List format"): `0-2,5`.

/// The numbers of `list`, all below `most`, in its order.
pub(crate) fn parse(list: &str, most: u32) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        if first > last || last >= most {
            return None;
        }
        numbers.extend(first..=last);
        // Nobody names one a thousand times.
        if numbers.len() > 4 * most as usize {
            return None;
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lists_are_bounded() {
        assert_eq!(parse("0-2,5", 1024).unwrap(), [0, 1, 2, 5]);
        for bad in ["", "x", "3-1", "0-4294967295", "1,,2", "1024"] {
            assert!(parse(bad, 1024).is_none(), "{bad:?}");
        }
        assert!(parse(&"0-1023,".repeat(100_000), 1024).is_none());
    }
}
