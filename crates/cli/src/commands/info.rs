use ferry_kit::{Template, units};
use serde_json::{Value, json};

use crate::{
    commands::Call,
    failure::{Failure, Result, describe},
    flags::{Arity, Spec},
    format::{object_of_type, single},
};

pub const SPEC: Spec = Spec {
    name: "info",
    aliases: "system info, info",
    synopsis: "[OPTIONS]",
    about: "Display system-wide information",
    arity: Arity::None,
    flags: concat!(crate::flags::plain_format!("-f, ")),
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let template = single(call.matches.text("format"))?;
    let client = json!({
        "Debug": false,
        "Version": call.env.build.version,
        "GitCommit": call.env.build.commit,
        "Os": "linux",
        "Context": call.context,
        "Plugins": [],
        "Warnings": null,
    });
    if let Some(template) = &template
        && names_a_field(call.matches.text("format"))
        && let Ok(text) = shown(template, &json!({"ClientInfo": client}))
    {
        // Nothing of the engine's is asked for.
        call.ui.line(&text);
        return Ok(0);
    }
    let (mut info, problem) = match call.client.get_json::<Value>("/info").await {
        Ok(info) => (info, None),
        Err(error) => (json!({}), Some(describe(&error))),
    };
    if let Some(template) = template {
        if let Some(entries) = info.as_object_mut() {
            entries.insert("ClientInfo".into(), client);
            if let Some(problem) = &problem {
                entries.insert("ServerErrors".into(), json!([problem]));
            }
        }
        match shown(&template, &info) {
            Ok(text) => call.ui.line(&text),
            Err(error) => {
                // docker ends the line it has begun.
                call.ui.print("\n");
                return Err(Failure::new(error.to_string()));
            }
        }
        return problem.map_or(Ok(0), |problem| Err(Failure::new(problem)));
    }
    call.ui.print(&format!(
        "Client:\n Version:    {}\n Context:    default\n Debug Mode: false\n\nServer:\n",
        call.env.build.version
    ));
    if let Some(problem) = problem {
        return Err(Failure::new(problem));
    }
    call.ui.print(&server(&info));
    for warning in info["Warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        call.ui.error_line(warning);
    }
    Ok(0)
}

/// docker's way to tell: a template without a field, as `{{json .}}`, is about everything.
fn names_a_field(format: &str) -> bool {
    let mut after_dots = format.split('.').skip(1);
    after_dots.any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn shown(template: &Template, info: &Value) -> std::result::Result<String, ferry_kit::Error> {
    object_of_type(template, info, "system.dockerInfo", &|_, _| None)
}

/// What `Server:` is followed by, in docker's order; what is not known is left out where docker leaves it out.
#[expect(clippy::cast_precision_loss, reason = "four digits are printed")]
fn server(info: &Value) -> String {
    let mut out = String::new();
    let text = |key: &str| info[key].as_str().unwrap_or_default();
    let number = |key: &str| info[key].as_i64().unwrap_or(0);
    let switch = |key: &str| info[key].as_bool().unwrap_or(false);
    let mut line = |label: &str, value: &str| out.push_str(&format!(" {label}: {value}\n"));
    line("Containers", &number("Containers").to_string());
    line(" Running", &number("ContainersRunning").to_string());
    line(" Paused", &number("ContainersPaused").to_string());
    line(" Stopped", &number("ContainersStopped").to_string());
    line("Images", &number("Images").to_string());
    let shown = |key: &str, label: &str, line: &mut dyn FnMut(&str, &str)| {
        if !text(key).is_empty() {
            line(label, text(key));
        }
    };
    shown("ServerVersion", "Server Version", &mut line);
    shown("Driver", "Storage Driver", &mut line);
    for pair in info["DriverStatus"].as_array().into_iter().flatten() {
        line(
            &format!(" {}", pair[0].as_str().unwrap_or_default()),
            pair[1].as_str().unwrap_or_default(),
        );
    }
    shown("LoggingDriver", "Logging Driver", &mut line);
    shown("CgroupDriver", "Cgroup Driver", &mut line);
    shown("CgroupVersion", "Cgroup Version", &mut line);
    out.push_str(" Plugins:\n");
    for (key, label) in [
        ("Volume", "Volume"),
        ("Network", "Network"),
        ("Authorization", "Authorization"),
        ("Log", "Log"),
    ] {
        let names: Vec<&str> = info["Plugins"][key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !names.is_empty() || matches!(key, "Volume" | "Network" | "Log") {
            out.push_str(&format!("  {label}: {}\n", names.join(" ")));
        }
    }
    let strings = |value: &Value| {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let directories = strings(&info["CDISpecDirs"]);
    if !directories.is_empty() {
        out.push_str(" CDI spec directories:\n");
        directories
            .iter()
            .for_each(|directory| out.push_str(&format!("  {directory}\n")));
    }
    let mut line = |label: &str, value: &str| out.push_str(&format!(" {label}: {value}\n"));
    line("Swarm", info["Swarm"]["LocalNodeState"].as_str().unwrap_or("inactive"));
    let mut runtimes: Vec<String> = info["Runtimes"]
        .as_object()
        .map(|runtimes| runtimes.keys().cloned().collect())
        .unwrap_or_default();
    if !runtimes.is_empty() {
        runtimes.sort();
        line("Runtimes", &runtimes.join(" "));
        line("Default Runtime", text("DefaultRuntime"));
    }
    line("Init Binary", text("InitBinary"));
    for (key, label) in [
        ("ContainerdCommit", "containerd version"),
        ("RuncCommit", "runc version"),
        ("InitCommit", "init version"),
    ] {
        line(label, info[key]["ID"].as_str().unwrap_or_default());
    }
    let security = strings(&info["SecurityOptions"]);
    if !security.is_empty() {
        out.push_str(" Security Options:\n");
        for option in security {
            let mut fields = option
                .split(',')
                .map(|field| field.split_once('=').unwrap_or(("name", field)));
            let (first, rest): (Vec<_>, Vec<_>) = fields.by_ref().partition(|(key, _)| *key == "name");
            for (_, name) in first {
                out.push_str(&format!("  {name}\n"));
            }
            for (key, value) in rest {
                let key = if key == "profile" { "Profile" } else { key };
                out.push_str(&format!("   {key}: {value}\n"));
            }
        }
    }
    let mut line = |label: &str, value: &str| out.push_str(&format!(" {label}: {value}\n"));
    line("Kernel Version", text("KernelVersion"));
    line("Operating System", text("OperatingSystem"));
    line("OSType", text("OSType"));
    line("Architecture", text("Architecture"));
    line("CPUs", &number("NCPU").to_string());
    line("Total Memory", &units::bytes_size(number("MemTotal") as f64));
    line("Name", text("Name"));
    line("ID", text("ID"));
    line("Docker Root Dir", text("DockerRootDir"));
    line("Debug Mode", &switch("Debug").to_string());
    if switch("Debug") {
        line(" File Descriptors", &number("NFd").to_string());
        line(" Goroutines", &number("NGoroutines").to_string());
        line(" System Time", text("SystemTime"));
        line(" EventsListeners", &number("NEventsListener").to_string());
    }
    for (key, label) in [
        ("HttpProxy", "HTTP Proxy"),
        ("HttpsProxy", "HTTPS Proxy"),
        ("NoProxy", "No Proxy"),
    ] {
        shown(key, label, &mut line);
    }
    let labels = strings(&info["Labels"]);
    if !labels.is_empty() {
        out.push_str(" Labels:\n");
        labels.iter().for_each(|label| out.push_str(&format!("  {label}\n")));
    }
    out.push_str(&format!(" Experimental: {}\n", switch("ExperimentalBuild")));
    let registries = &info["RegistryConfig"];
    let mut insecure: Vec<String> = registries["IndexConfigs"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, index)| index["Secure"] == false)
        .filter_map(|(_, index)| index["Name"].as_str().map(str::to_owned))
        .collect();
    insecure.extend(strings(&registries["InsecureRegistryCIDRs"]));
    if !insecure.is_empty() {
        out.push_str(" Insecure Registries:\n");
        insecure
            .iter()
            .for_each(|registry| out.push_str(&format!("  {registry}\n")));
    }
    let mirrors = strings(&registries["Mirrors"]);
    if !mirrors.is_empty() {
        out.push_str(" Registry Mirrors:\n");
        mirrors.iter().for_each(|mirror| out.push_str(&format!("  {mirror}\n")));
    }
    out.push_str(&format!(" Live Restore Enabled: {}\n", switch("LiveRestoreEnabled")));
    if !text("ProductLicense").is_empty() {
        out.push_str(&format!(" Product License: {}\n", text("ProductLicense")));
    }
    out.push('\n');
    out
}
