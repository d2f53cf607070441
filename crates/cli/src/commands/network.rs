//! `network` and its commands.

mod ipam;
mod list;

use std::collections::BTreeMap;

use ferry_api::network::{ConfigReference, Connect, Create, Created, Disconnect, EndpointIpam, EndpointSettings};
use ferry_client::{Body, Client, Method};

use crate::{
    commands::{
        Call,
        prune::{agreed, networks},
    },
    failure::{Failure, Result, describe},
    flags::{Arity, Spec},
    options,
};

pub const CREATE: Spec = Spec {
    name: "network create",
    synopsis: "[OPTIONS] NETWORK",
    about: "Create a network",
    arity: Arity::Exactly(1),
    flags: "\
--attachable | Enable manual container attachment
--aux-address map | Auxiliary IPv4 or IPv6 addresses used by Network driver (default map[])
--config-from string | The network from which to copy the configuration
--config-only | Create a configuration only network
-d, --driver string | Driver to manage the Network (default \"bridge\")
--gateway strings | IPv4 or IPv6 Gateway for the master subnet
--ingress | Create swarm routing-mesh network
--internal | Restrict external access to the network
--ip-range strings | Allocate container ip from a sub-range
--ipam-driver string | IP Address Management Driver (default \"default\")
--ipam-opt map | Set IPAM driver specific options (default map[])
--ipv4 | Enable or disable IPv4 address assignment (default true)
--ipv6 | Enable or disable IPv6 address assignment
--label list | Set metadata on a network
-o, --opt map | Set driver specific options (default map[])
--scope string | Control the network's scope
--subnet strings | Subnet in CIDR format that represents a network segment",
    check,
    ..Spec::EMPTY
};

pub const CONNECT: Spec = Spec {
    name: "network connect",
    synopsis: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    arity: Arity::Exactly(2),
    flags: "\
--alias strings | Add network-scoped alias for the container
--driver-opt strings | driver options for the network
--gw-priority int | Highest gw-priority provides the default gateway. Accepts positive and negative values.
--ip string | IPv4 address (e.g., \"172.30.100.104\")
--ip6 string | IPv6 address (e.g., \"2001:db8::33\")
--link list | Add link to another container
--link-local-ip strings | Add a link-local address for the container",
    check,
    ..Spec::EMPTY
};

pub const DISCONNECT: Spec = Spec {
    name: "network disconnect",
    synopsis: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    arity: Arity::Exactly(2),
    flags: "-f, --force | Force the container to disconnect from a network",
    ..Spec::EMPTY
};

pub const INSPECT: Spec = Spec {
    name: "network inspect",
    synopsis: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Display detailed information on one or more networks",
    arity: Arity::AtLeast(1),
    flags: concat!(
        crate::flags::plain_format!("-f, "),
        "\n-v, --verbose | Verbose output for diagnostics"
    ),
    ..Spec::EMPTY
};

pub const LS: Spec = Spec {
    name: "network ls",
    aliases: "network ls, network list",
    synopsis: "[OPTIONS]",
    about: "List networks",
    arity: Arity::None,
    flags: concat!(
        "-f, --filter filter | Provide filter values (e.g. \"driver=bridge\")\n",
        crate::flags::table_format!(),
        "\n\
--no-trunc | Do not truncate the output
-q, --quiet | Only display network IDs"
    ),
    ..Spec::EMPTY
};

pub const PRUNE: Spec = Spec {
    name: "network prune",
    synopsis: "[OPTIONS]",
    about: "Remove all unused networks",
    arity: Arity::None,
    flags: "\
--filter filter | Provide filter values (e.g. \"until=<timestamp>\")
-f, --force | Do not prompt for confirmation",
    ..Spec::EMPTY
};

pub const RM: Spec = Spec {
    name: "network rm",
    aliases: "network rm, network remove",
    synopsis: "NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    arity: Arity::AtLeast(1),
    flags: "-f, --force | Do not error if the network does not exist",
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>, name: &str) -> Result<u8> {
    match name {
        "network create" => create(call).await,
        "network connect" => connect(&call).await,
        "network disconnect" => disconnect(&call).await,
        "network inspect" => super::inspect::run(call, name).await,
        "network ls" => list::run(call).await,
        "network prune" => prune(call).await,
        _ => remove(call).await,
    }
}

fn check(flag: &str, value: &str) -> std::result::Result<(), String> {
    match flag {
        "alias" | "driver-opt" | "gateway" | "ip-range" | "link-local-ip" | "subnet" => {
            options::fields(value).map(|_| ())
        }
        "label" => options::label(value),
        "link" => options::link(value),
        _ => Ok(()),
    }
}

/// The values of a flag that takes several at once, between commas.
fn strings(call: &Call<'_>, flag: &str) -> Vec<String> {
    let given = call.matches.list(flag);
    let given = given.iter().filter(|value| !value.is_empty());
    given
        .flat_map(|value| options::fields(value).unwrap_or_default())
        .collect()
}

async fn create(call: Call<'_>) -> Result<u8> {
    let matches = &call.matches;
    let text = |flag, default: &str| matches.get(flag).unwrap_or(default).to_owned();
    let given = |flag| matches.is_set(flag).then(|| matches.switch(flag));
    let [subnets, ranges, gateways] = ["subnet", "ip-range", "gateway"].map(|flag| strings(&call, flag));
    let auxiliary = options::pairs(&matches.list("aux-address"));
    let ipam = ferry_api::network::Ipam {
        driver: text("ipam-driver", "default"),
        options: Some(options::pairs(&matches.list("ipam-opt"))),
        config: Some(ipam::configs(&subnets, &ranges, &gateways, &auxiliary).map_err(Failure::new)?),
    };
    let from = text("config-from", "");
    let body = Create {
        driver: text("driver", "bridge"),
        scope: text("scope", ""),
        enable_ipv4: given("ipv4"),
        enable_ipv6: given("ipv6"),
        ipam: Some(ipam),
        internal: matches.switch("internal"),
        attachable: matches.switch("attachable"),
        ingress: matches.switch("ingress"),
        config_only: matches.switch("config-only"),
        config_from: (!from.is_empty()).then_some(ConfigReference { network: from }),
        options: Some(options::pairs(&matches.list("opt"))),
        labels: Some(options::pairs(&matches.list("label"))),
        name: matches.arguments[0].clone(),
        check_duplicate: None,
    };
    let created: Created = call.client.post_json("/networks/create", &body).await?;
    if !created.warning.is_empty() {
        call.ui.error_line(&format!("WARNING: {}", created.warning));
    }
    call.ui.line(&created.id);
    Ok(0)
}

async fn connect(call: &Call<'_>) -> Result<u8> {
    let matches = &call.matches;
    let mut driver_opts = BTreeMap::new();
    for option in strings(call, "driver-opt") {
        let pair = option
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| Failure::new("invalid key/value pair format in driver options"))?;
        driver_opts.insert(key.to_owned(), value.to_owned());
    }
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpam {
            ipv4_address: matches.text("ip").to_owned(),
            ipv6_address: matches.text("ip6").to_owned(),
            link_local_ips: strings(call, "link-local-ip"),
        }),
        links: Some(matches.list("link")).filter(|links| !links.is_empty()),
        aliases: Some(strings(call, "alias")),
        driver_opts: Some(driver_opts),
        gw_priority: matches.int("gw-priority").unwrap_or(0),
        ..EndpointSettings::default()
    };
    let body = Connect {
        container: matches.arguments[1].clone(),
        endpoint_config: Some(endpoint),
    };
    post(call, "connect", &body).await
}

async fn disconnect(call: &Call<'_>) -> Result<u8> {
    let body = Disconnect {
        container: call.matches.arguments[1].clone(),
        force: call.matches.switch("force"),
    };
    post(call, "disconnect", &body).await
}

async fn post(call: &Call<'_>, action: &str, body: &impl serde::Serialize) -> Result<u8> {
    let path = format!("{}/{action}", path(&call.matches.arguments[0])?);
    call.client.request(Method::POST, &path, Body::json(body)?).await?;
    Ok(0)
}

fn path(network: &str) -> Result<String> {
    if network.trim().is_empty() {
        return Err(Failure::new("invalid network name or ID: value is empty"));
    }
    Ok(format!("/networks/{}", Client::escape(network)))
}

async fn remove(call: Call<'_>) -> Result<u8> {
    let mut failed = false;
    for name in &call.matches.arguments {
        let removed = match path(name) {
            Ok(path) => call
                .client
                .delete(&path)
                .await
                .map(|_| ())
                .map_err(|error| (error.is_not_found(), describe(&error))),
            Err(failure) => Err((false, failure.message)),
        };
        match removed {
            Ok(()) => call.ui.line(name),
            Err((true, _)) if call.matches.switch("force") => {}
            Err((_, message)) => {
                failed = true;
                call.ui.error_line(&message);
            }
        }
    }
    if failed {
        return Err(Failure::new("exit status 1"));
    }
    Ok(0)
}

async fn prune(mut call: Call<'_>) -> Result<u8> {
    let warning = "WARNING! This will remove all custom networks not used by at least one container.";
    if agreed(&mut call, warning).await? {
        networks(&mut call).await?;
    }
    Ok(0)
}
