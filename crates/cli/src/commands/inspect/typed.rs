//! What a template sees of an object. docker runs it over the object's Go struct; when that has no such field, over the JSON
//! as it came, where maps are printed as maps and their keys in order.
//!
//! JSON does not say what the struct says: fields that are left out when empty, other names, times and durations. [`text`] puts
//! that in, unless the template writes JSON itself.

use ferry_kit::{
    Template,
    template::{Missing, Options},
};
use serde_json::{Map, Value, json};

use crate::format::{LISTS, MAPS, go_duration, go_instant};

type Result<T> = std::result::Result<T, ferry_kit::Error>;

/// Go pointers, by the names of their fields.
const POINTERS: &[&str] = &[
    "Health",
    "Healthcheck",
    "Init",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "SizeRootFs",
    "SizeRw",
    "StopTimeout",
    "UsageData",
];
/// Structs that are printed as such, or lists of them, or maps to them.
const NETWORK_STRUCTS: &[&str] = &["Config", "ConfigFrom", "Containers", "IPAM"];
const STRUCTS: &[&str] = &[
    "Devices",
    "ExposedPorts",
    "GraphDriver",
    "Health",
    "LogConfig",
    "Metadata",
    "Mounts",
    "PortBindings",
    "Ports",
    "RestartPolicy",
    "RootFS",
    "State",
    "Volumes",
];
/// Names that only the JSON has: Go's are ID, DNS, DNSOptions and DNSSearch.
const ONLY_JSON: [&str; 4] = ["Id", "Dns", "DnsOptions", "DnsSearch"];
/// An image's fields in Go's order.
const IMAGE: [&str; 18] = [
    "Id",
    "RepoTags",
    "RepoDigests",
    "Parent",
    "Comment",
    "Created",
    "DockerVersion",
    "Author",
    "Config",
    "Architecture",
    "Variant",
    "Os",
    "OsVersion",
    "Size",
    "VirtualSize",
    "GraphDriver",
    "RootFS",
    "Metadata",
];
/// A built image's configuration in Go's order; what is empty is left out of its JSON.
const IMAGE_CONFIG: [&str; 13] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "Healthcheck",
    "OnBuild",
    "Shell",
];

/// The object through the template, without the line's end. `source` is the template's text, `kind` as `--type` names it.
pub fn text(template: &Template, source: &str, kind: &str, value: &Value) -> Result<String> {
    if kind == "volume" {
        // Of these docker keeps no JSON.
        return as_struct(template, source, kind, value.clone());
    }
    if !ONLY_JSON.iter().any(|name| names(source, name))
        && let Ok(text) = as_struct(template, source, kind, value.clone())
    {
        return Ok(text);
    }
    let mut value = value.clone();
    value.sort_all_objects();
    let options = Options {
        missing: Missing::Error,
        ..Options::default()
    };
    template.execute_with(&value, &options)
}

/// Whether a template has `.NAME`.
fn names(source: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    source
        .split('.')
        .skip(1)
        .any(|rest| rest.strip_prefix(name).is_some_and(ends))
}

fn as_struct(template: &Template, source: &str, kind: &str, mut value: Value) -> Result<String> {
    let id = value["Id"].clone();
    let created = instant(&value["Created"]).filter(|_| kind == "network");
    if kind == "image" {
        order_image(&mut value);
    }
    if !source.contains("json") {
        match kind {
            "container" => fill_container(&mut value),
            "image" => fill_image(&mut value),
            "network" => fill_network(&mut value),
            _ => {}
        }
    }
    let options = Options {
        methods: Some(&|name, _| match (name, &created) {
            ("ID", _) if id.is_string() => Some(Ok(id.clone())),
            ("Created", Some(created)) => Some(Ok(created.clone().into())),
            _ => None,
        }),
        missing: match kind {
            "volume" => Missing::Type("volume.Volume"),
            _ => Missing::Error,
        },
        maps: MAPS,
        lists: LISTS,
        structs: if kind == "network" { NETWORK_STRUCTS } else { STRUCTS },
        pointers: POINTERS,
        ..Options::default()
    };
    template.execute_with(&value, &options)
}

/// A time as Go prints it.
fn instant(value: &Value) -> Option<String> {
    value.as_str()?.parse().ok().map(go_instant)
}

/// The objects of a list somewhere inside.
fn each<'v>(value: &'v mut Value, pointer: &str) -> impl Iterator<Item = &'v mut Value> {
    value
        .pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Gives an object all these fields, in this order; others it has follow.
fn fill(value: Option<&mut Value>, fields: &[(&str, Value)]) {
    let Some(entries) = value.and_then(Value::as_object_mut) else {
        return;
    };
    let mut whole = Map::new();
    for (name, empty) in fields {
        whole.insert(
            (*name).to_owned(),
            entries.shift_remove(*name).unwrap_or_else(|| empty.clone()),
        );
    }
    whole.append(entries);
    *entries = whole;
}

/// Gives an object the fields it lacks, at its end.
fn add(value: Option<&mut Value>, fields: &[(&str, Value)]) {
    let Some(entries) = value.and_then(Value::as_object_mut) else {
        return;
    };
    for (name, empty) in fields {
        entries.entry(*name).or_insert_with(|| empty.clone());
    }
}

fn fill_container(value: &mut Value) {
    let null = Value::Null;
    add(Some(value), &[("SizeRw", null.clone()), ("SizeRootFs", null.clone())]);
    add(value.pointer_mut("/State"), &[("Health", null.clone())]);
    let names = ["Annotations", "Mounts", "StorageOpt", "Tmpfs", "Sysctls", "Init"];
    add(value.pointer_mut("/HostConfig"), &names.map(|name| (name, Value::Null)));
    add(
        value.pointer_mut("/Config"),
        &[
            ("ExposedPorts", null.clone()),
            ("Healthcheck", null.clone()),
            ("ArgsEscaped", false.into()),
            ("NetworkDisabled", false.into()),
            ("MacAddress", "".into()),
            ("StopSignal", "".into()),
            ("StopTimeout", null.clone()),
            ("Shell", null),
        ],
    );
    durations(value.pointer_mut("/Config/Healthcheck"));
    for mount in each(value, "/Mounts") {
        let [kind, name, source, destination, driver, mode, propagation] =
            ["Type", "Name", "Source", "Destination", "Driver", "Mode", "Propagation"].map(|name| (name, "".into()));
        let fields = [
            kind,
            name,
            source,
            destination,
            driver,
            mode,
            ("RW", false.into()),
            propagation,
        ];
        fill(Some(mount), &fields);
    }
}

/// A check's times, of which there may be none.
fn durations(check: Option<&mut Value>) {
    let Some(check) = check else { return };
    for name in ["Interval", "Timeout", "StartPeriod", "StartInterval"] {
        if let Some(value) = check.get_mut(name)
            && let Some(nanoseconds @ 1..) = value.as_i64()
        {
            *value = go_duration(nanoseconds).into();
        }
    }
}

fn fill_image(value: &mut Value) {
    add(
        Some(value),
        &[
            ("Variant", "".into()),
            ("OsVersion", "".into()),
            ("VirtualSize", 0.into()),
        ],
    );
    if let Some(tagged) = value.pointer_mut("/Metadata/LastTagTime")
        && let Some(time) = instant(tagged)
    {
        *tagged = time.into();
    }
    let empty = |name: &str| match name {
        "User" | "WorkingDir" | "StopSignal" => json!(""),
        "ArgsEscaped" => json!(false),
        _ => Value::Null,
    };
    let fields = IMAGE_CONFIG.map(|name| (name, empty(name)));
    fill(value.pointer_mut("/Config"), &fields);
    durations(value.pointer_mut("/Config/Healthcheck"));
}

fn order_image(value: &mut Value) {
    let Some(config) = value.pointer_mut("/Config").and_then(Value::as_object_mut) else {
        return;
    };
    let mut ordered = Map::new();
    for name in IMAGE_CONFIG {
        let entry = config.shift_remove(name);
        let empty = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        };
        if let Some(entry) = entry.filter(|entry| !empty(entry)) {
            ordered.insert(name.to_owned(), entry);
        }
    }
    *config = ordered;
    if let Some(entries) = value.as_object_mut() {
        let known = IMAGE.iter().filter_map(|name| entries.shift_remove_entry(*name));
        let mut whole: Map<String, Value> = known.collect();
        whole.append(entries);
        *entries = whole;
    }
}

fn fill_network(value: &mut Value) {
    for config in each(value, "/IPAM/Config") {
        let [subnet, range, gateway] = ["Subnet", "IPRange", "Gateway"].map(|name| (name, "".into()));
        fill(
            Some(config),
            &[subnet, range, gateway, ("AuxiliaryAddresses", Value::Null)],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: &str, source: &str, value: &Value) -> String {
        let template = Template::parse(source).unwrap();
        match text(&template, source, kind, value) {
            Ok(text) => text,
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn a_struct_is_tried_before_the_json() {
        let container = json!({
            "Id": "1", "State": {"Status": "running"}, "Config": {"Healthcheck": {"Interval": 90_000_000_000_u64}},
            "Mounts": [{"Type": "bind", "Source": "/a", "Destination": "/b", "Mode": "", "RW": true, "Propagation": "rprivate"}],
            "HostConfig": {"Dns": null},
        });
        for (source, want) in [
            ("{{if .State.Health}}x{{else}}none{{end}}", "none"),
            ("{{.State.Health}}", "<nil>"),
            ("{{.State}}", "{running <nil>}"),
            ("{{.Id}} {{.State}}", "1 map[Status:running]"),
            ("{{.ID}} {{.Config.Healthcheck.Interval}}", "1 1m30s"),
            ("{{.Mounts}}", "[{bind  /a /b   true rprivate}]"),
            ("{{json .State}}", r#"{"Status":"running"}"#),
            ("{{.HostConfig.Dns}}", "<no value>"),
            (
                "{{.State.Health.Status}}",
                "error: template: :1:8: executing \"\" at <.State.Health.Status>: map has no entry for key \"Health\"",
            ),
        ] {
            assert_eq!(shown("container", source, &container), want, "{source}");
        }
    }

    #[test]
    fn an_object_of_another_shape_is_no_reason_to_end() {
        for kind in ["container", "image", "network", "volume"] {
            for value in [
                json!(1),
                json!({"State": 1, "Config": "x", "Mounts": {}, "Metadata": [], "IPAM": []}),
            ] {
                assert!(shown(kind, "{{.Name}}", &value).starts_with("error"));
            }
        }
    }

    #[test]
    fn an_image_s_configuration_is_in_go_s_order() {
        let image = json!({"Config": {"Cmd": ["sh"], "Entrypoint": null, "Env": ["A=b"], "User": ""}});
        assert_eq!(
            shown("image", "{{json .Config}}", &image),
            r#"{"Env":["A=b"],"Cmd":["sh"]}"#
        );
        assert_eq!(
            shown("image", "{{.Config.User}}{{.Variant}}|{{.VirtualSize}}", &image),
            "|0"
        );
    }
}
