//! `system df` (docker/cli's formatter/disk_usage.go, 28.5).

use ferry_api::system::{BuildCache, DiskUsage};
use ferry_api::volume::Volume;
use ferry_api::{Timestamp, container, image};
use ferry_kit::{
    Template,
    template::{Missing, Options},
    units,
};
use serde_json::{Value, json};

use crate::{
    commands::{Call, images, ps},
    failure::{Failure, Result},
    flags::{Arity, Spec},
    format::{Listing, list},
    reference,
};

pub const SPEC: Spec = Spec {
    name: "system df",
    synopsis: "[OPTIONS]",
    about: "Show docker disk usage",
    arity: Arity::None,
    flags: concat!(
        crate::flags::table_format!(),
        "\n\
-v, --verbose | Show detailed information on space usage"
    ),
    ..Spec::EMPTY
};

const HEADINGS: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
const VOLUME_HEADINGS: [(&str, &str); 3] = [("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];
const CACHE_HEADINGS: [(&str, &str); 7] = [
    ("ID", "CACHE ID"),
    ("CacheType", "CACHE TYPE"),
    ("Size", "SIZE"),
    ("CreatedSince", "CREATED"),
    ("LastUsedSince", "LAST USED"),
    ("UsageCount", "USAGE"),
    ("Shared", "SHARED"),
];

/// Ferry's own.
const REGISTRY_HEADINGS: [(&str, &str); 3] = [("Root", "ROOT"), ("Blobs", "BLOBS"), ("Size", "SIZE")];

const SUMMARY: &str = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
const IMAGES: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
const CONTAINERS: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
const VOLUMES: &str = "{{.Name}}\t{{.Links}}\t{{.Size}}";
const CACHE: &str =
    "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}";

const REGISTRY: &str = "{{.Root}}\t{{.Blobs}}\t{{.Size}}";

pub async fn run(call: Call<'_>) -> Result<u8> {
    let usage: DiskUsage = call.client.get_json("/system/df").await?;
    let format = call.matches.text("format");
    let text = match (call.matches.switch("verbose"), format) {
        (true, "" | "table") => detailed(&usage)?,
        (true, format) => formatted(&usage, format)?,
        (false, format) => {
            let listing = Listing {
                table: SUMMARY,
                headings: &HEADINGS,
                type_name: "*formatter.diskUsageImagesContext",
                method: None,
            };
            let format = if format.is_empty() { "table" } else { format };
            list(&listing, format, &summary(&usage))?
        }
    };
    call.ui.print(&text);
    Ok(0)
}

/// One line of the summary, fields in alphabetical order.
struct Kind {
    name: &'static str,
    total: usize,
    active: usize,
    size: i64,
    reclaimable: i64,
    /// Say how much of it all that is.
    percent: bool,
}

impl Kind {
    fn row(&self) -> Value {
        let mut reclaimable = size(self.reclaimable);
        if self.percent && self.size > 0 {
            let percent = i128::from(self.reclaimable) * 100 / i128::from(self.size);
            reclaimable = format!("{reclaimable} ({percent}%)");
        }
        json!({
            "Active": self.active.to_string(),
            "Reclaimable": reclaimable,
            "Size": size(self.size),
            "TotalCount": self.total.to_string(),
            "Type": self.name,
        })
    }
}

fn summary(usage: &DiskUsage) -> Vec<Value> {
    let images = usage.images.as_deref().unwrap_or_default();
    let used = images.iter().filter(|image| image.containers != 0);
    let used = used.filter(|image| image.size != -1 && image.shared_size != -1);
    let used: i64 = used.map(|image| image.size - image.shared_size).sum();
    let containers = usage.containers.as_deref().unwrap_or_default();
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let held = |unused: bool| -> i64 {
        let found = volumes.iter().filter_map(|volume| volume.usage_data.as_ref());
        let found = found.filter(|data| data.size != -1 && !(unused && data.ref_count != 0));
        found.map(|data| data.size).sum()
    };
    let cache = usage.build_cache.as_deref().unwrap_or_default();
    [
        Kind {
            name: "Images",
            total: images.len(),
            active: images.iter().filter(|image| image.containers > 0).count(),
            size: usage.layers_size,
            reclaimable: usage.layers_size - used,
            percent: true,
        },
        Kind {
            name: "Containers",
            total: containers.len(),
            active: containers.iter().filter(|container| is_active(container)).count(),
            size: containers.iter().map(|container| container.size_rw).sum(),
            reclaimable: containers
                .iter()
                .filter(|container| !is_active(container))
                .map(|container| container.size_rw)
                .sum(),
            percent: true,
        },
        Kind {
            name: "Local Volumes",
            total: volumes.len(),
            active: volumes
                .iter()
                .filter(|volume| volume.usage_data.as_ref().is_some_and(|data| data.ref_count > 0))
                .count(),
            size: held(false),
            reclaimable: held(true),
            percent: true,
        },
        Kind {
            name: "Build Cache",
            total: cache.len(),
            active: cache.iter().filter(|entry| entry.in_use).count(),
            size: cached(usage, false),
            reclaimable: cached(usage, true),
            percent: false,
        },
    ]
    .iter()
    .map(Kind::row)
    .collect()
}

/// Bytes that the cache alone has.
fn cached(usage: &DiskUsage, unused: bool) -> i64 {
    let own = usage.build_cache.iter().flatten().filter(|entry| !entry.shared);
    own.filter(|entry| !(unused && entry.in_use))
        .map(|entry| entry.size)
        .sum()
}

fn is_active(container: &container::Summary) -> bool {
    ["running", "paused", "restarting"].contains(&container.state.to_string().as_str())
}

/// Four tables, one below the other; and a fifth where the engine serves a registry.
fn detailed(usage: &DiskUsage) -> Result<String> {
    let table = |table, headings, rows: &[Value]| {
        let listing = Listing {
            table,
            headings,
            type_name: "",
            method: None,
        };
        list(&listing, "table", rows)
    };
    let registry = match &usage.registry {
        None => String::new(),
        Some(registry) => {
            let row = json!({
                "Blobs": registry.blobs.to_string(),
                "Root": registry.root,
                "Size": size(registry.size),
            });
            format!(
                "\nRegistry space usage:\n\n{}",
                table(REGISTRY, &REGISTRY_HEADINGS[..], &[row])?
            )
        }
    };
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: {}\n\n{}{registry}",
        table(IMAGES, &images::HEADINGS[..], &image_rows(usage, true))?,
        table(CONTAINERS, &ps::HEADINGS[..], &container_rows(usage, true))?,
        table(VOLUMES, &VOLUME_HEADINGS[..], &volume_rows(usage))?,
        size(cached(usage, false)),
        table(CACHE, &CACHE_HEADINGS[..], &cache_rows(usage, true))?,
    ))
}

/// The whole as one object through a template.
fn formatted(usage: &DiskUsage, format: &str) -> Result<String> {
    let source = match format.strip_prefix("table") {
        Some(rest) => rest.trim(),
        None if format == "json" => "{{json .}}",
        None => format,
    };
    let source = source.replace("\\t", "\t").replace("\\n", "\n");
    let template =
        Template::parse(&source).map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
    let whole = json!({
        "Images": image_rows(usage, false),
        "Containers": container_rows(usage, false),
        "Volumes": volume_rows(usage),
        "BuildCache": cache_rows(usage, false),
    });
    let options = Options {
        missing: Missing::Type("*formatter.diskUsageContext"),
        escape_html: true,
        ..Options::default()
    };
    template
        .execute_with(&whole, &options)
        .map_err(|error| Failure::new(error.to_string()))
}

/// One line an image, under the first of its names.
fn image_rows(usage: &DiskUsage, truncate: bool) -> Vec<Value> {
    let row = |image: &image::Summary| {
        let first = image.repo_tags.as_deref().and_then(<[String]>::first);
        let first = first.and_then(|name| reference::parse(name).ok());
        let (repository, tag) = match &first {
            Some(name) => (name.familiar_name(), name.tag_or_latest()),
            None => (images::NONE, images::NONE),
        };
        images::row(image, truncate, repository, tag, "")
    };
    usage.images.iter().flatten().map(row).collect()
}

fn container_rows(usage: &DiskUsage, truncate: bool) -> Vec<Value> {
    let shown = usage.containers.iter().flatten().map(ps::Shown::without_image);
    shown.map(|container| ps::row(&container, truncate)).collect()
}

fn volume_rows(usage: &DiskUsage) -> Vec<Value> {
    let row = |volume: &Volume| {
        let data = volume.usage_data.as_ref();
        let labels = volume.labels.iter().flatten();
        json!({
            "Availability": "N/A",
            "Driver": volume.driver,
            "Group": "N/A",
            "Labels": labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","),
            "Links": data.map_or_else(|| "N/A".to_owned(), |data| data.ref_count.to_string()),
            "Mountpoint": volume.mountpoint,
            "Name": volume.name,
            "Scope": volume.scope,
            "Size": data.map_or_else(|| "N/A".to_owned(), |data| size(data.size)),
            "Status": "N/A",
        })
    };
    usage.volumes.iter().flatten().map(row).collect()
}

/// The least recently used first.
fn cache_rows(usage: &DiskUsage, truncate: bool) -> Vec<Value> {
    const DIGITS: usize = 12;
    let mut cache: Vec<&BuildCache> = usage.build_cache.iter().flatten().collect();
    cache.sort_by(|a, b| (a.last_used_at, &a.id).cmp(&(b.last_used_at, &b.id)));
    let row = |entry: &&BuildCache| {
        let digits = if truncate { DIGITS } else { usize::MAX };
        let mut id: String = entry.id.chars().take(digits).collect();
        if entry.in_use {
            id.push('*');
        }
        let ago = |at: Timestamp| {
            let age = jiff::Timestamp::now().duration_since(at.0);
            format!("{} ago", units::human_duration(age.as_secs_f64()))
        };
        json!({
            "CacheType": entry.kind,
            "CreatedAt": entry.created_at.to_string(),
            "CreatedSince": ago(entry.created_at),
            "Description": entry.description,
            "ID": id,
            "InUse": entry.in_use.to_string(),
            "LastUsedAt": entry.last_used_at.map(|at| at.to_string()).unwrap_or_default(),
            "LastUsedSince": entry.last_used_at.map(ago).unwrap_or_default(),
            "Parent": entry.parents.join(", "),
            "Shared": entry.shared.to_string(),
            "Size": rounded(entry.size),
            "UsageCount": entry.usage_count.to_string(),
        })
    };
    cache.iter().map(row).collect()
}

#[expect(clippy::cast_precision_loss, reason = "four digits are printed")]
fn size(bytes: i64) -> String {
    units::human_size(bytes as f64)
}

/// As docker prints what a build's things take, and only these.
#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn rounded(bytes: i64) -> String {
    units::human_size_with_precision(bytes as f64, 3)
}
