//! What is kept of builds: its part of `/system/df`, and `POST /build/prune`.

use axum::extract::State;
use axum::response::Response;
use ferry_api::ApiVersion;
use ferry_api::system::{BuildCache, BuildPrune};
use ferry_build::output::{Kept, Prune};
use ferry_engine::builds;

use crate::failure::{Failure, Result};
use crate::query::{Query, Version};
use crate::{App, body};

/// Before this version there was one bound, `keep-storage`.
const BOUNDS: ApiVersion = ApiVersion::new(1, 48);

pub async fn usage(app: &App) -> Result<Vec<BuildCache>> {
    let kept = app.engine.builds.usage(&[]).await?;
    Ok(kept.into_iter().map(described).collect())
}

pub async fn prune(State(app): State<App>, Version(version): Version, query: Query) -> Result<Response> {
    let bytes = |name: &str| -> Result<u64> {
        let text = query.text(name);
        let bytes: i64 = match text {
            "" => 0,
            text => text
                .parse()
                .map_err(|_| Failure::invalid(format!("{name} is in bytes and expects an integer, got {text}")))?,
        };
        Ok(u64::try_from(bytes).unwrap_or(0))
    };
    let mut asked = Prune {
        all: query.flag("all"),
        ..builds::prune_of(&query.filters()?)?
    };
    if version < BOUNDS {
        asked.reserved = bytes("keep-storage")?;
    } else {
        asked.reserved = match query.text("reserved-space") {
            "" => bytes("keep-storage")?,
            _ => bytes("reserved-space")?,
        };
        asked.max_used = bytes("max-used-space")?;
        asked.min_free = bytes("min-free-space")?;
    }
    let gone = app.engine.builds.prune(asked).await?;
    body::ok(&BuildPrune {
        space_reclaimed: gone.iter().map(|kept| kept.size).sum(),
        caches_deleted: Some(gone.into_iter().map(|kept| kept.id).collect::<Vec<_>>()).filter(|ids| !ids.is_empty()),
    })
}

fn described(kept: Kept) -> BuildCache {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    BuildCache {
        id: kept.id,
        parents: kept.parents,
        kind: kept.kind,
        description: kept.description,
        in_use: kept.in_use,
        shared: kept.shared,
        size: signed(kept.size),
        created_at: kept.created.unwrap_or_default().into(),
        last_used_at: kept.last_used.map(Into::into),
        usage_count: signed(kept.used),
    }
}
