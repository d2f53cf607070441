//! Whether what is kept is what it should be.

use ferry_api::system::{Check, Finding};
use ferry_storage::{CheckOptions, Done};
use futures_util::future::BoxFuture;

use super::System;
use crate::error::Result;
use crate::world::blocking;

impl System {
    /// Looks at the store, and mends what can be mended if `repair` says so; without `contents` nothing is read but records.
    pub fn check(&self, contents: bool, repair: bool) -> BoxFuture<'_, Result<Check>> {
        Box::pin(async move {
            let images = self.world.store.images.clone();
            let checked = blocking("check the store", move || {
                images.check(CheckOptions { contents, repair })
            })
            .await??;
            let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            let findings = checked.findings.into_iter().map(|finding| Finding {
                what: finding.what,
                why: finding.why,
                repaired: finding.done == Done::Removed,
                left: match finding.done {
                    Done::Left(why) => why,
                    _ => String::new(),
                },
            });
            Ok(Check {
                images: count(checked.images),
                layers: count(checked.layers),
                blobs: count(checked.blobs),
                bytes: i64::try_from(checked.bytes).unwrap_or(i64::MAX),
                findings: findings.collect(),
            })
        })
    }
}
