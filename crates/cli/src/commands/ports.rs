//! `ports`: Ferry's own.

use ferry_api::network::HeldPort;
use serde_json::{Value, json};

use crate::{
    commands::Call,
    failure::Result,
    flags::{Arity, Spec},
    format::{Listing, list, short_id},
};

pub const SPEC: Spec = Spec {
    name: "ports",
    synopsis: "[OPTIONS]",
    about: "List who holds which port of the host",
    arity: Arity::None,
    flags: concat!(
        crate::flags::table_format!(),
        "\n\
--no-trunc | Don't truncate output"
    ),
    ..Spec::EMPTY
};

const HEADINGS: [(&str, &str); 9] = [
    ("Address", "ADDRESS"),
    ("Port", "PORT"),
    ("Protocol", "PROTOCOL"),
    ("Container", "CONTAINER"),
    ("ContainerID", "CONTAINER ID"),
    ("Target", "TARGET"),
    ("Process", "PROCESS"),
    ("PID", "PID"),
    ("UID", "UID"),
];

pub async fn run(call: Call<'_>) -> Result<u8> {
    let held: Vec<HeldPort> = call.client.get_json("/ports").await?;
    let whole = call.matches.switch("no-trunc");
    let rows: Vec<Value> = held.iter().map(|port| row(port, whole)).collect();
    let format = match call.matches.text("format") {
        "" => "table",
        format => format,
    };
    let listing = Listing {
        table: "{{.Address}}\t{{.Port}}\t{{.Protocol}}\t{{.Container}}\t{{.Target}}\t{{.Process}}",
        headings: &HEADINGS,
        type_name: "port",
        method: None,
    };
    let text = list(&listing, format, &rows)?;
    call.ui.print(&text);
    Ok(0)
}

fn range(first: u16, last: u16) -> String {
    if first >= last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

fn row(held: &HeldPort, whole: bool) -> Value {
    let container = held.container.as_ref();
    let process = held.process.as_ref();
    let process_name = process.map(|process| match (process.pid, process.name.as_str()) {
        (0, _) => "unknown".to_owned(),
        (pid, name) => format!("{name} ({pid})"),
    });
    let target = container.map(|container| {
        let last = container
            .port
            .saturating_add(held.host_port_end.saturating_sub(held.host_port));
        range(container.port, last)
    });
    let id = container.map(|container| if whole { &container.id } else { short_id(&container.id) });
    json!({
        "Address": if held.host_ip.is_empty() { "*" } else { &held.host_ip },
        "Container": container.map(|container| container.name.trim_start_matches('/')).unwrap_or_default(),
        "ContainerID": id.unwrap_or_default(),
        "PID": process.map(|process| process.pid.to_string()).unwrap_or_default(),
        "Port": range(held.host_port, held.host_port_end),
        "Process": process_name.unwrap_or_default(),
        "Protocol": held.protocol,
        "Target": target.unwrap_or_default(),
        "UID": process.map(|process| process.uid.to_string()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use ferry_api::network::{HoldingContainer, HoldingProcess};

    use super::*;

    #[test]
    fn a_row_says_who_holds_what() {
        let mut held = HeldPort {
            host_ip: "0.0.0.0".into(),
            host_port: 10_000,
            host_port_end: 10_009,
            protocol: "udp".into(),
            container: Some(HoldingContainer {
                id: "0123456789abcdef".into(),
                name: "/game".into(),
                port: 20_000,
            }),
            process: None,
        };
        let shown = row(&held, false);
        for (key, value) in [
            ("Port", "10000-10009"),
            ("Target", "20000-20009"),
            ("Container", "game"),
            ("Process", ""),
        ] {
            assert_eq!(shown[key], value);
        }
        assert_eq!(shown["ContainerID"], "0123456789ab");
        held.container = None;
        held.host_port_end = 10_000;
        held.process = Some(HoldingProcess {
            pid: 7,
            name: "nginx".into(),
            uid: 33,
        });
        let shown = row(&held, false);
        for (key, value) in [
            ("Port", "10000"),
            ("Target", ""),
            ("Process", "nginx (7)"),
            ("UID", "33"),
        ] {
            assert_eq!(shown[key], value);
        }
    }
}
