//! Huge pages (cgroup-v1/hugetlb.rst).

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxHugepageLimit;

use crate::error::{Error, Result};
use crate::group::Group;
use crate::limits::Limits;
use crate::stats::{HugePages, page_sizes};

pub(super) fn asked(pages: &[LinuxHugepageLimit]) -> Vec<(String, String)> {
    pages
        .iter()
        .map(|p| (format!("hugepageLimits.{}", p.page_size()), p.limit().to_string()))
        .collect()
}

/// The limit of reservations is set too where there is one (5.7).
pub(super) fn apply(limits: &mut Limits<'_>, pages: &[LinuxHugepageLimit]) -> Result<()> {
    for page in pages {
        let size = page_size(page)?;
        let limit = format!("hugepageLimits.{size}");
        let value = page.limit().to_string();
        let meaning = "a limit of huge pages is a number of bytes";
        limits.set(&limit, &format!("hugetlb.{size}.limit_in_bytes"), &value, meaning)?;
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        if limits.group.exists(&reserved) {
            limits.set(&limit, &reserved, &value, meaning)?;
        }
    }
    Ok(())
}

/// Of reservations, where the kernel counts those.
pub(super) fn stats(group: &Group<'_>) -> Result<BTreeMap<String, HugePages>> {
    let names = group.files()?;
    let of_size = |size: &str| {
        let reserved = format!("hugetlb.{size}.rsvd");
        let prefix = if names.iter().any(|name| name.starts_with(&reserved)) {
            reserved
        } else {
            format!("hugetlb.{size}")
        };
        let number = |what: &str| Ok(group.read_number(&format!("{prefix}.{what}"))?.unwrap_or_default());
        let pages = HugePages {
            usage: number("usage_in_bytes")?,
            max_usage: number("max_usage_in_bytes")?,
            failures: number("failcnt")?,
        };
        Ok((size.to_owned(), pages))
    };
    page_sizes(&names).into_iter().map(of_size).collect()
}

/// `64KB`, `2MB`, `1GB`: it becomes part of a file's name.
pub(crate) fn page_size(page: &LinuxHugepageLimit) -> Result<&str> {
    let size = page.page_size();
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    match digits {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(size),
        _ => Err(Error::Invalid {
            limit: "hugepageLimits".to_owned(),
            value: size.chars().take(80).collect(),
            meaning: "a page size is like 2MB".to_owned(),
        }),
    }
}
