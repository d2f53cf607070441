use ferry_api::registry::SearchResult;
use ferry_client::{Body, Method, Query};
use serde_json::{Value, json};

use crate::{
    commands::{Call, filters, login::registry_auth},
    failure::{Failure, Result},
    flags::{Arity, Spec},
    format::{Listing, ellipsis, list},
};

pub const SPEC: Spec = Spec {
    name: "search",
    synopsis: "[OPTIONS] TERM",
    about: "Search Docker Hub for images",
    arity: Arity::Exactly(1),
    flags: "\
-f, --filter filter | Filter output based on conditions provided
--format string | Pretty-print search using a Go template
--limit int | Max number of search results
--no-trunc | Don't truncate output",
    ..Spec::EMPTY
};

const HEADINGS: [(&str, &str); 4] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
];

/// Columns of a description that is cut.
const DESCRIPTION: usize = 45;

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let term = call.matches.arguments[0].clone();
    // What names its registry is searched for there.
    let domain = match term.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first.to_owned(),
        _ => ferry_image::DEFAULT_DOMAIN.to_owned(),
    };
    let auth = registry_auth(&mut call, &domain).await?;
    let limit = call.matches.int("limit").filter(|limit| *limit > 0);
    let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
    let path = Query::new()
        .text("filters", &filters(&call.matches))
        .text("limit", &limit)
        .text("term", &term)
        .on("/images/search");
    let headers = [("X-Registry-Auth", auth.as_str())];
    let response = call
        .client
        .request_with(Method::GET, &path, &headers, Body::Empty)
        .await?;
    let bytes = response.bytes().await?;
    let found: Vec<SearchResult> = serde_json::from_slice(&bytes).map_err(|error| Failure::new(error.to_string()))?;
    let format = match call.matches.text("format") {
        "" => "table",
        format => format,
    };
    let (whole, as_json) = (call.matches.switch("no-trunc"), format.contains("json"));
    let rows: Vec<Value> = found.iter().map(|result| row(result, whole, as_json)).collect();
    let listing = Listing {
        table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
        headings: &HEADINGS,
        type_name: "*search.searchContext",
        method: None,
    };
    let text = list(&listing, format, &rows)?;
    call.ui.print(&text);
    Ok(0)
}

fn row(result: &SearchResult, whole: bool, as_json: bool) -> Value {
    let flag = |set: bool| match (set, as_json) {
        (set, true) => set.to_string(),
        (true, false) => "[OK]".to_owned(),
        (false, false) => String::new(),
    };
    let description = result.description.replace('\n', " ").replace('\r', "");
    json!({
        "Description": if whole { description } else { ellipsis(&description, DESCRIPTION) },
        "IsOfficial": flag(result.is_official),
        "Name": result.name,
        "StarCount": result.star_count.to_string(),
    })
}
