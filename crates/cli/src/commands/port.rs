use ferry_api::container::{Inspect, PortBinding};
use ferry_client::Client;

use crate::{
    commands::Call,
    failure::{Failure, Result},
    flags::{Arity, Spec, uint16},
};

pub const SPEC: Spec = Spec {
    name: "port",
    aliases: "container port, port",
    synopsis: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List port mappings or a specific mapping for the container",
    arity: Arity::Between(1, 2),
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let name = &call.matches.arguments[0];
    let inspect: Inspect = call
        .client
        .get_json(&format!("/containers/{}/json", Client::escape(name)))
        .await?;
    let ports = inspect.network_settings.unwrap_or_default().ports.unwrap_or_default();
    let address = |binding: &PortBinding| {
        if binding.host_ip.contains(':') {
            format!("[{}]:{}", binding.host_ip, binding.host_port)
        } else {
            format!("{}:{}", binding.host_ip, binding.host_port)
        }
    };
    if let Some(wanted) = call.matches.arguments.get(1) {
        let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        if let Err(why) = uint16(port) {
            return Err(Failure::new(format!("Error: invalid port ({port}): {why}")));
        }
        let Some(bindings) = ports.get(&format!("{port}/{protocol}")).and_then(Option::as_ref) else {
            return Err(Failure::new(format!(
                "Error: No public port '{wanted}' published for {name}"
            )));
        };
        for binding in bindings {
            call.ui.line(&address(binding));
        }
        return Ok(0);
    }
    let mut lines: Vec<(u16, String)> = ports
        .iter()
        .flat_map(|(port, bindings)| {
            let number = port
                .split('/')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
            bindings
                .iter()
                .flatten()
                .map(move |binding| (number, format!("{port} -> {}", address(binding))))
        })
        .collect();
    lines.sort();
    for (_, line) in lines {
        call.ui.line(&line);
    }
    Ok(0)
}
