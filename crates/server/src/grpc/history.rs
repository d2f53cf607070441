//! Builds that are under way, and those that were, as clients are told of them.

use std::collections::HashSet;

use ferry_buildkit::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, UpdateBuildHistoryRequest,
};
use tonic::Status;
use tonic::codegen::BoxStream;

use super::builds::Builds;

/// What has been told: the build, and whether it had ended.
type Told = HashSet<(String, bool)>;

/// The builds there are, and those that come unless the client wants to know no more.
pub fn listen(builds: Builds, request: BuildHistoryRequest) -> Result<BoxStream<BuildHistoryEvent>, Status> {
    if let Some(filter) = request.filter.first() {
        let why = format!("filters of the history ({filter}) are not there yet: ask without, and choose yourself");
        return Err(Status::invalid_argument(why));
    }
    let changes = builds.changes();
    let begin = (builds, request, changes, Told::new(), Vec::new().into_iter(), true);
    let events = futures_util::stream::unfold(
        begin,
        |(builds, request, mut changes, mut told, mut ready, mut first)| async move {
            loop {
                if let Some(event) = ready.next() {
                    return Some((Ok(event), (builds, request, changes, told, ready, first)));
                }
                if !first && (request.early_exit || changes.changed().await.is_err()) {
                    return None;
                }
                first = false;
                ready = news(&builds, &request, &mut told).into_iter();
            }
        },
    );
    Ok(Box::pin(events))
}

fn news(builds: &Builds, request: &BuildHistoryRequest, told: &mut Told) -> Vec<BuildHistoryEvent> {
    let (running, ended) = builds.records();
    let ended = if request.active_only { Vec::new() } else { ended };
    let mut events: Vec<BuildHistoryEvent> = Vec::new();
    let kinds = [
        (BuildHistoryEventType::Complete, ended),
        (BuildHistoryEventType::Started, running),
    ];
    for (kind, records) in kinds {
        for record in records {
            let is_wanted = request.r#ref.is_empty() || request.r#ref == record.r#ref;
            if is_wanted && told.insert((record.r#ref.clone(), record.completed_at.is_some())) {
                events.push(event(kind, record));
            }
        }
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    if limit > 0 {
        events.drain(..events.len().saturating_sub(limit));
    }
    events
}

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(record),
    }
}

/// Forgets a build, or keeps it from being forgotten.
pub async fn update(builds: &Builds, request: &UpdateBuildHistoryRequest) -> Result<(), Status> {
    let reference = &request.r#ref;
    let unknown = || Status::not_found(format!("record {reference} not found"));
    if request.delete {
        return builds.forget(reference).then_some(()).ok_or_else(unknown);
    }
    builds.any(reference).await.ok_or_else(unknown)?;
    match request.finalize {
        true => Ok(()),
        false => builds
            .pin(reference, request.pinned)
            .map_err(Status::resource_exhausted),
    }
}
