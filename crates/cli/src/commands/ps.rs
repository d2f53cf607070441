use std::collections::BTreeMap;

use ferry_api::{
    container::{PortSummary, Summary},
    volume::MountPoint,
};
use ferry_client::Query;
use ferry_kit::{
    Template, gofmt,
    template::{Missing, Options},
    units,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::{
    commands::{Call, filters},
    failure::{Failure, Result},
    flags::{Arity, Spec},
    format::{Listing, ago, ellipsis, go_time, label, list, short_id},
    reference,
};

pub const SPEC: Spec = Spec {
    name: "ps",
    aliases: "container ls, container list, container ps, ps",
    synopsis: "[OPTIONS]",
    about: "List containers",
    arity: Arity::None,
    flags: concat!(
        "\
-a, --all | Show all containers (default shows just running)
-f, --filter filter | Filter output based on conditions provided\n",
        crate::flags::table_format!(),
        "\n\
-n, --last int | Show n last created containers (includes all states) (default -1)
-l, --latest | Show the latest created container (includes all states)
--no-trunc | Don't truncate output
-q, --quiet | Only display container IDs
-s, --size | Display total file sizes"
    ),
    ..Spec::EMPTY
};

pub const HEADINGS: [(&str, &str); 15] = [
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

/// What `raw` stands for; the states have a blank before them, if anything.
const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: \
                   {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\n\
                   ports: {{- pad .Ports 1 0}}\n";

/// A size that is seen in the output of a template that shows sizes.
const SHOWN: &str = "size/is/shown";

const TYPE: &str = "*formatter.ContainerContext";

/// What a row shows of a container. Of a thousand, the rest is most of what there is to read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Shown {
    id: String,
    names: Option<Vec<String>>,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    command: String,
    created: i64,
    ports: Option<Vec<PortSummary>>,
    size_rw: i64,
    size_root_fs: i64,
    labels: Option<BTreeMap<String, String>>,
    state: String,
    status: String,
    network_settings: Option<Networks>,
    mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Networks {
    networks: Option<BTreeMap<String, IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Mount {
    name: String,
    source: String,
    driver: String,
}

impl Shown {
    /// As `system df` shows it: what is below the writable layer is counted with the images.
    pub fn without_image(container: &Summary) -> Self {
        let networks = container.network_settings.as_ref().map(|settings| Networks {
            networks: settings.networks.as_ref().map(|networks| {
                let names = networks.keys().cloned();
                names.map(|name| (name, IgnoredAny)).collect()
            }),
        });
        let mount = |mount: &MountPoint| Mount {
            name: mount.name.clone(),
            source: mount.source.clone(),
            driver: mount.driver.clone(),
        };
        Self {
            id: container.id.clone(),
            names: container.names.clone(),
            image: container.image.clone(),
            image_id: container.image_id.clone(),
            command: container.command.clone(),
            created: container.created,
            ports: container.ports.clone(),
            size_rw: container.size_rw,
            size_root_fs: 0,
            labels: container.labels.clone(),
            state: container.state.clone(),
            status: container.status.clone(),
            network_settings: networks,
            mounts: container
                .mounts
                .as_ref()
                .map(|mounts| mounts.iter().map(mount).collect()),
        }
    }
}

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let quiet = call.matches.switch("quiet");
    let format = match call.matches.text("format") {
        "" if quiet => String::new(),
        "" => call.config().ps_format.clone(),
        format => {
            let format = format.to_owned();
            if quiet {
                call.ui
                    .error_line("WARNING: Ignoring custom format, because both --format and --quiet are set.");
            }
            format
        }
    };
    let mut size = call.matches.switch("size");
    if !size && !format.is_empty() {
        size = asks_for_size(&format)?;
    }
    let limit = if call.matches.switch("latest") {
        1
    } else {
        call.matches.int("last").unwrap_or(-1)
    };
    let query = Query::new()
        .flag("all", call.matches.switch("all"))
        .text("filters", &filters(&call.matches))
        .text("limit", &if limit > 0 { limit.to_string() } else { String::new() })
        .flag("size", size);
    let containers: Vec<Shown> = call.client.get_json(&query.on("/containers/json")).await?;
    let with_size = format!("{RAW}size: {{{{.Size}}}}\n");
    let format = match format.as_str() {
        "raw" if quiet => "container_id: {{.ID}}",
        _ if quiet => "{{.ID}}",
        "raw" if call.matches.switch("size") => &with_size,
        "raw" => RAW,
        "" => "table",
        format => format,
    };
    let truncate = !call.matches.switch("no-trunc");
    // Of our own templates it is known what they show.
    let fields: &[&str] = match format {
        "{{.ID}}" => &["ID"],
        "table" => &[
            "ID",
            "Image",
            "Command",
            "RunningFor",
            "Status",
            "Ports",
            "Names",
            "Size",
        ],
        _ => &FIELDS,
    };
    let rows: Vec<Value> = containers
        .iter()
        .map(|container| select(container, fields, truncate))
        .collect();
    let label =
        |index: usize, name: &str, arguments: &[Value]| label(containers[index].labels.as_ref(), name, arguments);
    let table = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
    let with_size = format!("{table}\t{{{{.Size}}}}");
    let table = if call.matches.switch("size") { &with_size } else { table };
    let listing = Listing {
        table,
        headings: &HEADINGS,
        type_name: TYPE,
        method: Some(&label),
    };
    let text = list(&listing, format, &rows)?;
    call.ui.print(&text);
    Ok(0)
}

/// Sizes cost the daemon a walk through the files; a template that shows them asks for them. docker finds that out by running
/// the template once, which is also where it finds mistakes.
fn asks_for_size(format: &str) -> Result<bool> {
    if matches!(format, "table" | "json" | "raw") {
        return Ok(false);
    }
    // With its `table`, which is text here: complaints count its columns.
    let template =
        Template::parse(format).map_err(|error| Failure::new(format!("failed to parse template: {error}")))?;
    let options = Options {
        missing: Missing::Type(TYPE),
        methods: Some(&|name, arguments| label(None, name, arguments)),
        ..Options::default()
    };
    let mut probe = row(&Shown::default(), true);
    probe["Size"] = SHOWN.into();
    let text = template
        .execute_with(&probe, &options)
        .map_err(|error| Failure::new(format!("failed to execute template: {error}")))?;
    Ok(format.contains(".Size") || text.contains(SHOWN))
}

/// In alphabetical order, as `json` prints them.
const FIELDS: [&str; 15] = [
    "Command",
    "CreatedAt",
    "ID",
    "Image",
    "Labels",
    "LocalVolumes",
    "Mounts",
    "Names",
    "Networks",
    "Platform",
    "Ports",
    "RunningFor",
    "Size",
    "State",
    "Status",
];

pub fn row(container: &Shown, truncate: bool) -> Value {
    select(container, &FIELDS, truncate)
}

fn select(container: &Shown, fields: &[&str], truncate: bool) -> Value {
    let field = |name: &&str| ((*name).to_owned(), field(container, name, truncate));
    fields.iter().map(field).collect()
}

fn field(container: &Shown, name: &str, truncate: bool) -> Value {
    let cut = |text: &str, width| match truncate {
        true => ellipsis(text, width),
        false => text.to_owned(),
    };
    let mounts = container.mounts.iter().flatten();
    let text = match name {
        "Command" => gofmt::quote(&cut(&container.command, 20)),
        "CreatedAt" => go_time(container.created),
        "ID" if truncate => short_id(&container.id).to_owned(),
        "ID" => container.id.clone(),
        "Image" => image(container, truncate),
        "Labels" => {
            let labels = container.labels.iter().flatten();
            joined(labels.map(|(key, value)| format!("{key}={value}")))
        }
        "LocalVolumes" => mounts.filter(|mount| mount.driver == "local").count().to_string(),
        "Mounts" => joined(mounts.map(|mount| match mount.name.as_str() {
            "" => cut(&mount.source, 15),
            name => cut(name, 15),
        })),
        "Names" => names(container, truncate),
        "Networks" => {
            let settings = container.network_settings.iter();
            joined(settings.flat_map(|settings| settings.networks.iter().flatten().map(|(name, _)| name.clone())))
        }
        "Ports" => ports(container.ports.clone().unwrap_or_default()),
        "RunningFor" => ago(container.created),
        "Size" => size(container),
        "State" => container.state.clone(),
        "Status" => container.status.clone(),
        // `Platform`: Docker knows it with its other store only.
        _ => return Value::Null,
    };
    text.into()
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

fn names(container: &Shown, truncate: bool) -> String {
    let names: Vec<&str> = container
        .names
        .iter()
        .flatten()
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        .collect();
    match names.iter().find(|name| !name.contains('/')) {
        Some(own) if truncate => (*own).to_owned(),
        _ => names.join(","),
    }
}

fn image(container: &Shown, truncate: bool) -> String {
    let image = &container.image;
    if image.is_empty() {
        return "<no image>".into();
    }
    if truncate {
        if short_id(&container.image_id) == short_id(image) {
            return short_id(image).to_owned();
        }
        if let Ok(reference) = reference::parse(image)
            && let (Some(tag), Some(_)) = (&reference.tag, &reference.digest)
        {
            return format!("{}:{tag}", reference.familiar_name());
        }
    }
    image.clone()
}

#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn size(container: &Shown) -> String {
    let written = units::human_size_with_precision(container.size_rw as f64, 3);
    match container.size_root_fs {
        1.. => format!(
            "{written} (virtual {})",
            units::human_size_with_precision(container.size_root_fs as f64, 3)
        ),
        _ => written,
    }
}

fn join_host_port(ip: &str, port: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

/// `127.0.0.1:53->53/udp, 100-102/tcp`: consecutive ports in one range.
fn ports(mut ports: Vec<PortSummary>) -> String {
    struct Group {
        ip: String,
        kind: String,
        first: u16,
        last: u16,
    }
    impl Group {
        fn text(&self) -> String {
            let mut ports = self.first.to_string();
            if self.first != self.last {
                ports = format!("{ports}-{}", self.last);
            }
            if !self.ip.is_empty() {
                ports = format!("{}->{ports}", join_host_port(&self.ip, &ports));
            }
            format!("{ports}/{}", self.kind)
        }
    }
    ports.sort_by(|a, b| {
        (a.private_port, &a.ip, a.public_port, &a.r#type).cmp(&(b.private_port, &b.ip, b.public_port, &b.r#type))
    });
    let (mut shown, mut mapped, mut groups) = (Vec::new(), Vec::new(), Vec::<Group>::new());
    for port in ports {
        if !port.ip.is_empty() && port.public_port != port.private_port {
            let host = join_host_port(&port.ip, &port.public_port.to_string());
            mapped.push(format!("{host}->{}/{}", port.private_port, port.r#type));
            continue;
        }
        let current = port.private_port;
        match groups
            .iter_mut()
            .find(|group| group.ip == port.ip && group.kind == port.r#type)
        {
            None => groups.push(Group {
                ip: port.ip,
                kind: port.r#type,
                first: current,
                last: current,
            }),
            Some(group) if Some(current) == group.last.checked_add(1) => group.last = current,
            Some(group) => {
                shown.push(group.text());
                (group.first, group.last) = (current, current);
            }
        }
    }
    shown.extend(groups.iter().map(Group::text));
    shown.extend(mapped);
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, private_port: u16, public_port: u16, kind: &str) -> PortSummary {
        PortSummary {
            ip: ip.into(),
            private_port,
            public_port,
            r#type: kind.into(),
        }
    }

    #[test]
    fn ports_are_grouped_as_docker_groups_them() {
        assert_eq!(
            ports(vec![
                port("0.0.0.0", 80, 8080, "tcp"),
                port("::", 80, 8080, "tcp"),
                port("127.0.0.1", 53, 53, "udp"),
                port("", 102, 0, "tcp"),
                port("", 100, 0, "tcp"),
                port("", 101, 0, "tcp"),
            ]),
            "127.0.0.1:53->53/udp, 100-102/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(
            ports(vec![port("", 65535, 0, "tcp"), port("", 1, 0, "tcp")]),
            "1/tcp, 65535/tcp"
        );
        assert_eq!(ports(Vec::new()), "");
    }

    #[test]
    fn a_template_with_a_mistake_is_refused_before_anything_is_asked() {
        assert_eq!(
            asks_for_size("{{.Foo}}").unwrap_err().message,
            "failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext"
        );
        assert_eq!(
            asks_for_size("{{.ID").unwrap_err().message,
            "failed to parse template: template: :1: unclosed action"
        );
        assert_eq!(asks_for_size("table {{.Names}}\t{{.Size}}"), Ok(true));
        assert_eq!(asks_for_size("{{json .}}"), Ok(true));
        assert_eq!(asks_for_size("{{.Label \"x\"}}"), Ok(false));
    }
}
