//! Events of builds as clients are told them.

use std::collections::{HashMap, HashSet};

use ferry_build::progress::Event;
use ferry_buildkit::Timestamp as WireTime;
use ferry_buildkit::control::{BuildHistoryRecord, StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use ferry_buildkit::pb;
use ferry_dockerfile::{Position, Range};
use jiff::Timestamp;

/// Events in one message at most.
pub const BATCH: usize = 256;

pub fn timestamp(time: Timestamp) -> WireTime {
    WireTime {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

pub fn range(range: &Range) -> pb::Range {
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let position = |position: Position| pb::Position {
        line: number(position.line),
        character: number(position.column.saturating_sub(1)),
    };
    pb::Range {
        start: Some(position(range.start)),
        end: Some(position(range.end)),
    }
}

pub fn response(events: impl IntoIterator<Item = Event>) -> StatusResponse {
    let mut response = StatusResponse::default();
    let size = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    for event in events {
        match event {
            Event::Vertex(vertex) => response.vertexes.push(Vertex {
                digest: vertex.id,
                inputs: vertex.inputs,
                name: vertex.name,
                cached: vertex.cached,
                started: vertex.started.map(timestamp),
                completed: vertex.completed.map(timestamp),
                error: vertex.error.unwrap_or_default(),
                progress_group: None,
            }),
            Event::Status(status) => response.statuses.push(VertexStatus {
                id: status.id.clone(),
                vertex: status.vertex,
                name: status.id,
                current: size(status.current),
                total: size(status.total),
                timestamp: Some(timestamp(Timestamp::now())),
                started: status.started.map(timestamp),
                completed: status.completed.map(timestamp),
            }),
            Event::Log(log) => response.logs.push(VertexLog {
                vertex: log.vertex,
                timestamp: Some(timestamp(log.at)),
                stream: log.stream.into(),
                msg: log.data,
            }),
            Event::Warning(warning) => response.warnings.push(VertexWarning {
                vertex: warning.vertex,
                level: 1,
                short: warning.short.into(),
                detail: warning.detail.into_iter().map(Into::into).collect(),
                url: warning.url,
                info: warning.file.map(|file| pb::SourceInfo {
                    filename: file.name,
                    data: file.bytes,
                    language: "Dockerfile".to_owned(),
                }),
                ranges: warning.ranges.iter().map(range).collect(),
            }),
            // Only Ferry's own command line asks for it.
            Event::Explained(_) => {}
        }
    }
    response
}

/// A range as clients say it.
pub fn written(range: &pb::Range) -> Range {
    let number = |number: i32| u32::try_from(number).unwrap_or(0);
    let position = |position: &Option<pb::Position>| {
        let position = (*position).unwrap_or_default();
        Position {
            line: number(position.line),
            column: number(position.character).saturating_add(1),
        }
    };
    Range {
        start: position(&range.start),
        end: position(&range.end),
    }
}

/// How many steps a build has had.
#[derive(Debug, Default)]
pub struct Counts {
    all: HashSet<String>,
    completed: HashMap<String, bool>,
    warnings: i32,
}

impl Counts {
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Vertex(vertex) => {
                self.all.insert(vertex.id.clone());
                if vertex.completed.is_some() && vertex.error.is_none() {
                    self.completed.insert(vertex.id.clone(), vertex.cached);
                }
            }
            Event::Warning(_) => self.warnings += 1,
            Event::Status(_) | Event::Log(_) | Event::Explained(_) => {}
        }
    }

    pub fn note(&self, record: &mut BuildHistoryRecord) {
        let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        record.num_total_steps = number(self.all.len());
        record.num_completed_steps = number(self.completed.len());
        record.num_cached_steps = number(self.completed.values().filter(|cached| **cached).count());
        record.num_warnings = self.warnings;
    }
}
