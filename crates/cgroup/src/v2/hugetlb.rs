//! Huge pages.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxHugepageLimit;

use crate::error::Result;
use crate::group::Group;
use crate::limits::Limits;
use crate::stats::{HugePages, keyed, page_sizes};
use crate::v1::hugetlb::page_size;

/// The limit of reservations is set too where there is one (5.7).
pub(super) fn apply(limits: &mut Limits<'_>, pages: &[LinuxHugepageLimit]) -> Result<()> {
    for page in pages {
        let size = page_size(page)?;
        let limit = format!("hugepageLimits.{size}");
        let value = page.limit().to_string();
        let meaning = "a limit of huge pages is a number of bytes";
        limits.set(&limit, &format!("hugetlb.{size}.max"), &value, meaning)?;
        let reserved = format!("hugetlb.{size}.rsvd.max");
        if limits.group.exists(&reserved) {
            limits.set(&limit, &reserved, &value, meaning)?;
        }
    }
    Ok(())
}

/// Of reservations, where the kernel counts those; failures are the same for both.
pub(super) fn stats(group: &Group<'_>) -> Result<BTreeMap<String, HugePages>> {
    let names = group.files()?;
    let of_size = |size: &str| {
        let reserved = format!("hugetlb.{size}.rsvd.current");
        let usage = if names.contains(&reserved) {
            reserved
        } else {
            format!("hugetlb.{size}.current")
        };
        let events = group.read_known(&format!("hugetlb.{size}.events"))?;
        let pages = HugePages {
            usage: group.read_number(&usage)?.unwrap_or_default(),
            max_usage: 0,
            failures: keyed(&events, "max").unwrap_or_default(),
        };
        Ok((size.to_owned(), pages))
    };
    page_sizes(&names).into_iter().map(of_size).collect()
}
