use super::stop;
use crate::{commands::Call, failure::Result, flags::Spec};

/// Its flags are those of `stop`.
pub const SPEC: Spec = Spec {
    name: "restart",
    aliases: "container restart, restart",
    about: "Restart one or more containers",
    ..stop::SPEC
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    stop::end(call, "restart").await
}
