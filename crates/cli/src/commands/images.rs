mod tree;

use std::collections::BTreeMap;

use ferry_api::{Filters, image::Summary};
use ferry_client::Query;
use ferry_kit::units;
use serde_json::{Value, json};

use crate::{
    commands::Call,
    failure::{Failure, Result},
    flags::{Arity, Spec},
    format::{Listing, ago, go_time, list, short_id},
    reference,
};

pub const SPEC: Spec = Spec {
    name: "images",
    aliases: "image ls, image list, images",
    synopsis: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    arity: Arity::AtMost(1),
    flags: concat!(
        "\
-a, --all | Show all images (default hides intermediate images)
--digests | Show digests
-f, --filter filter | Filter output based on conditions provided\n",
        crate::flags::table_format!(),
        "\n\
--no-trunc | Don't truncate output
-q, --quiet | Only show image IDs
--tree | List multi-platform images as a tree (EXPERIMENTAL)"
    ),
    ..Spec::EMPTY
};

pub const HEADINGS: [(&str, &str); 11] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// What `raw` stands for.
const RAW: &str = "repository: {{ .Repository }}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\n\
                   virtual_size: {{.Size}}\n";
const RAW_WITH_DIGEST: &str = "repository: {{ .Repository }}\ntag: {{.Tag}}\ndigest: {{.Digest}}\nimage_id: {{.ID}}\n\
                               created_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";

pub const NONE: &str = "<none>";

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let as_tree = call.matches.switch("tree");
    if as_tree {
        for (given, name) in [
            (call.matches.switch("quiet"), "quiet"),
            (call.matches.switch("no-trunc"), "no-trunc"),
            (call.matches.switch("digests"), "show-digest"),
            (!call.matches.text("format").is_empty(), "format"),
        ] {
            if given {
                return Err(Failure::new(format!("--{name} is not yet supported with --tree")));
            }
        }
    }
    let mut filters = Filters::default();
    for filter in call.matches.list("filter") {
        if let Some((key, value)) = filter.split_once('=') {
            filters.add(key.trim().to_lowercase(), value.trim());
        }
    }
    if let Some(name) = call.matches.arguments.first() {
        filters.add("reference", name.as_str());
    }
    let filters = if filters.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&filters).unwrap_or_default()
    };
    let query = Query::new()
        .flag("all", call.matches.switch("all"))
        .text("filters", &filters)
        .flag("manifests", as_tree);
    let images: Vec<Summary> = call.client.get_json(&query.on("/images/json")).await?;
    if as_tree {
        let style = tree::Style {
            columns: call.ui.terminal_size().map_or(80, |(_, columns)| columns.into()),
            terminal: call.ui.stdout_is_terminal(),
        };
        let text = tree::tree(&images, call.matches.switch("all"), style);
        call.ui.print(&text);
        return Ok(0);
    }
    let (quiet, digests) = (call.matches.switch("quiet"), call.matches.switch("digests"));
    let format = match call.matches.text("format") {
        "" if quiet => String::new(),
        "" => call.config().images_format.clone(),
        format => format.to_owned(),
    };
    let format = match format.as_str() {
        "" | "table" if quiet => "{{.ID}}",
        "raw" if quiet => "image_id: {{.ID}}",
        "raw" if digests => RAW_WITH_DIGEST,
        "raw" => RAW,
        "" => "table",
        format => format,
    };
    let needs_digest = digests || format.contains(".Digest");
    let truncate = !call.matches.switch("no-trunc");
    let rows: Vec<Value> = images
        .iter()
        .flat_map(|image| rows(image, truncate, digests, needs_digest))
        .collect();
    let created = "{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}";
    let digest = if digests { "{{.Digest}}\t" } else { "" };
    let table = format!("{{{{.Repository}}}}\t{{{{.Tag}}}}\t{digest}{{{{.ID}}}}\t{created}\t{{{{.Size}}}}");
    let listing = Listing {
        table: &table,
        headings: &HEADINGS,
        type_name: "*formatter.imageContext",
        method: None,
    };
    let text = list(&listing, format, &rows)?;
    call.ui.print(&text);
    Ok(0)
}

/// One for each tag, and for each digest where digests are shown.
fn rows(image: &Summary, truncate: bool, digests_shown: bool, needs_digest: bool) -> Vec<Value> {
    let names = |list: &Option<Vec<String>>| {
        list.iter()
            .flatten()
            .filter_map(|name| reference::parse(name).ok())
            .collect::<Vec<_>>()
    };
    let (mut tags, mut digests) = (
        BTreeMap::<String, Vec<String>>::new(),
        BTreeMap::<String, Vec<String>>::new(),
    );
    for reference in names(&image.repo_tags) {
        let name = reference.familiar_name().to_owned();
        tags.entry(name).or_default().extend(reference.tag);
    }
    for reference in names(&image.repo_digests) {
        let name = reference.familiar_name().to_owned();
        digests.entry(name).or_default().extend(reference.digest);
    }
    if tags.is_empty() && digests.is_empty() {
        return vec![row(image, truncate, NONE, NONE, NONE)];
    }
    let mut rows = Vec::new();
    for (repository, tags) in tags {
        let digests = digests
            .remove(&repository)
            .filter(|digests| needs_digest && !digests.is_empty());
        for tag in tags {
            for digest in digests.as_deref().unwrap_or(&[NONE.to_owned()]) {
                rows.push(row(image, truncate, &repository, &tag, digest));
            }
        }
    }
    for (repository, digests) in digests {
        if digests_shown {
            rows.extend(
                digests
                    .iter()
                    .map(|digest| row(image, truncate, &repository, NONE, digest)),
            );
        } else {
            rows.push(row(image, truncate, &repository, NONE, ""));
        }
    }
    rows
}

#[expect(clippy::cast_precision_loss, reason = "four digits are printed")]
pub fn row(image: &Summary, truncate: bool, repository: &str, tag: &str, digest: &str) -> Value {
    let counted = |count: i64, text: String| if count == -1 { "N/A".to_owned() } else { text };
    let shared = image.shared_size;
    json!({
        "Containers": counted(image.containers, image.containers.to_string()),
        "CreatedAt": go_time(image.created),
        "CreatedSince": ago(image.created),
        "Digest": digest,
        "ID": if truncate { short_id(&image.id) } else { &image.id },
        "Repository": repository,
        "SharedSize": counted(shared, units::human_size(shared as f64)),
        "Size": units::human_size_with_precision(image.size as f64, 3),
        "Tag": tag,
        "UniqueSize": counted(shared, units::human_size((image.size - shared) as f64)),
        "VirtualSize": units::human_size(image.size as f64),
    })
}
