//! Builds that are under way, and those that were, as clients are told of them.

mod filters;

use std::collections::HashSet;

use ferry_buildkit::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, UpdateBuildHistoryRequest,
};
use jiff::Timestamp;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::builds::Builds;
use filters::Filters;

struct Asked {
    request: BuildHistoryRequest,
    filters: Filters,
}

/// What has been told: the build, and whether it had ended.
type Told = HashSet<(String, bool)>;

/// The builds there are, and those that come unless the client wants to know no more.
pub fn listen(builds: Builds, request: BuildHistoryRequest) -> Result<BoxStream<BuildHistoryEvent>, Status> {
    let filters = Filters::parse(&request.filter, Timestamp::now()).map_err(|why| {
        let given = request.filter.join(" ");
        Status::invalid_argument(format!("failed to parse history filters {given}: {why}"))
    })?;
    let changes = builds.changes();
    let asked = Asked { request, filters };
    let begin = (builds, asked, changes, Told::new(), Vec::new().into_iter(), true);
    let events = futures_util::stream::unfold(
        begin,
        |(builds, asked, mut changes, mut told, mut ready, mut first)| async move {
            loop {
                if let Some(event) = ready.next() {
                    return Some((Ok(event), (builds, asked, changes, told, ready, first)));
                }
                if !first && (asked.request.early_exit || changes.changed().await.is_err()) {
                    return None;
                }
                first = false;
                ready = news(&builds, &asked, &mut told).into_iter();
            }
        },
    );
    Ok(Box::pin(events))
}

fn news(builds: &Builds, asked: &Asked, told: &mut Told) -> Vec<BuildHistoryEvent> {
    let (request, now) = (&asked.request, Timestamp::now());
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
            if is_wanted
                && asked.filters.match_(&record, now)
                && told.insert((record.r#ref.clone(), record.completed_at.is_some()))
            {
                events.push(event(kind, record));
            }
        }
    }
    // The latest.
    let limit = usize::try_from(request.limit).unwrap_or(0);
    if limit > 0 && limit < events.len() {
        let begun = |event: &BuildHistoryEvent| {
            let created = event.record.as_ref().and_then(|record| record.created_at);
            created.map(|at| (at.seconds, at.nanos))
        };
        events.sort_by_key(|event| std::cmp::Reverse(begun(event)));
        events.truncate(limit);
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
