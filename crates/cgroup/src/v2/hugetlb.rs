//! Huge pages.

use oci_spec::runtime::LinuxHugepageLimit;

use crate::error::Result;
use crate::limits::Limits;
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
