//! Errors of builds as gRPC's, with the details that clients look for: the step, and the lines of the file.

use ferry_build::Error;
use ferry_buildkit::{Any, Message as _, RpcStatus};
use ferry_dockerfile::Range;
use serde_json::{Value, json};
use tonic::{Code, Status};

const VERTEX: &str = "github.com/moby/buildkit/errdefs.Vertex+json";
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";

/// BuildKit gives most of them no code of their own.
pub fn status(error: &Error) -> Status {
    let code = match error {
        Error::Canceled => Code::Cancelled,
        _ => Code::Unknown,
    };
    let details = match error {
        Error::Step(failed) => vec![
            any(SOURCE, &source(&failed.filename, &failed.file, &failed.ranges)),
            any(VERTEX, &json!({ "digest": failed.vertex })),
        ],
        Error::Dockerfile(written) => {
            vec![any(
                SOURCE,
                &source(&written.filename, &written.source, &written.error.ranges),
            )]
        }
        _ => Vec::new(),
    };
    of(&RpcStatus {
        code: code.into(),
        message: error.to_string(),
        details,
    })
}

/// One that came from a client, or goes to it in a message.
pub fn of(status: &RpcStatus) -> Status {
    let code = match Code::from(status.code) {
        Code::Ok => Code::Unknown,
        code => code,
    };
    Status::with_details(code, status.message.clone(), status.encode_to_vec().into())
}

fn any(kind: &str, value: &Value) -> Any {
    Any {
        type_url: kind.to_owned(),
        value: value.to_string().into_bytes(),
    }
}

/// As Go's encoding/json writes it: bytes in base64, numbers that are 0 left out.
fn source(filename: &str, text: &[u8], ranges: &[Range]) -> Value {
    use base64::Engine as _;
    let position = |position: ferry_dockerfile::Position| json!({ "line": position.line, "character": position.column.saturating_sub(1) });
    let ranges = ranges
        .iter()
        .map(|range| json!({ "start": position(range.start), "end": position(range.end) }));
    json!({
        "info": {
            "filename": filename,
            "data": base64::engine::general_purpose::STANDARD.encode(text),
            "language": "Dockerfile",
        },
        "ranges": ranges.collect::<Vec<_>>(),
    })
}
