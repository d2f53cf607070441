//! `system check`: Ferry's own.

use ferry_api::system::Check;
use ferry_client::{Body, Method, Query};
use ferry_kit::units;

use crate::{
    commands::Call,
    failure::Result,
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "system check",
    synopsis: "[OPTIONS]",
    about: "Check that images and layers on disk are what they should be",
    arity: Arity::None,
    flags: "\
--quick | Look only whether everything is there, and read nothing
--repair | Remove what is damaged or what nothing refers to; images that are removed can be pulled or loaded again",
    ..Spec::EMPTY
};

/// 1 when something is wrong and still is.
pub async fn run(call: Call<'_>) -> Result<u8> {
    let path = Query::new()
        .flag("contents", !call.matches.switch("quick"))
        .flag("repair", call.matches.switch("repair"))
        .on("/system/check");
    let response = call.client.request(Method::POST, &path, Body::Empty).await?;
    let check: Check = response.json().await?;
    let mut left = 0;
    for finding in &check.findings {
        let done = match (finding.repaired, finding.left.as_str()) {
            (true, _) => " (removed)".to_owned(),
            (false, "") => String::new(),
            (false, why) => format!(" (left alone: {why})"),
        };
        left += usize::from(!finding.repaired);
        call.ui.line(&format!("{}: {}{done}", finding.what, finding.why));
    }
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let read = units::human_size(check.bytes as f64);
    call.ui.line(&format!(
        "{} images, {} layers, {} blobs, {read} read: {}",
        check.images,
        check.layers,
        check.blobs,
        match (check.findings.len(), left) {
            (0, _) => "nothing is wrong".to_owned(),
            (found, 0) => format!("{found} found, none left"),
            (found, left) => format!("{found} found, {left} left"),
        }
    ));
    Ok(u8::from(left > 0))
}
