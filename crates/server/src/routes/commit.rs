//! `/commit`: a container becomes an image.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use ferry_api::container::Config;
use ferry_engine::container::Commit;
use http::{Request, StatusCode};

use super::uploads;
use crate::failure::Result;
use crate::query::Query;
use crate::{App, body};

pub async fn commit(State(app): State<App>, query: Query, request: Request<Body>) -> Result<Response> {
    // In every version that is still spoken a container is paused unless that is denied.
    let pause = query.given("pause").is_none() || query.flag("pause");
    let config: Option<Config> = body::read(request).await?;
    let commit = Commit {
        reference: uploads::reference(query.text("repo"), query.text("tag"))?,
        author: query.text("author").to_owned(),
        comment: query.text("comment").to_owned(),
        changes: query.all("changes"),
        pause,
        config,
    };
    let id = app.engine.containers.commit(query.text("container"), commit).await?;
    body::answer(StatusCode::CREATED, &serde_json::json!({ "Id": id }))
}
