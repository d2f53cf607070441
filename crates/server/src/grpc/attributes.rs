//! The attributes of a Dockerfile's frontend, as clients send them, and the request they are.
//!
//! What has no meaning for this builder and changes no result is passed over, as BuildKit does with all that it does not know; what
//! would change the result and is not there is refused by name.

use std::collections::BTreeMap;

use ferry_api::json;
use ferry_build::cache::CacheSource;
use ferry_build::request::{Address, Call, Entitlements, Layout, Location, Named, NoCache};
use ferry_build::{Error, Request, Result};
use ferry_buildkit::Message as _;
use ferry_buildkit::pb::{Definition, Op, op};

/// The identifier of a source that is another build's result, before its id.
pub const RESULT: &str = "engine-ref://";
/// Images whose frontend is the one that is built in.
const BUILT_IN: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];
/// An archive that the client has on its standard input.
const SESSION_URL: &str = "http://buildkit-session/";

/// Before the name of an OCI layout, in the session.
const LAYOUT: &str = "oci:";

type Attributes = BTreeMap<String, String>;

/// The request of a build. `inputs` are the frontend's inputs: other builds' results, by the names attributes call them by.
pub fn request(
    frontend: &str,
    attributes: &Attributes,
    inputs: &BTreeMap<String, Definition>,
    entitlements: &[String],
) -> Result<Request> {
    check_frontend(frontend, attributes)?;
    let mut request = Request {
        id: ferry_kit::Id::random().to_string(),
        entitlements: allowed(entitlements)?,
        ..Request::default()
    };
    set_places(&mut request, attributes)?;
    for (name, value) in attributes {
        set(&mut request, name, value, inputs)?;
    }
    Ok(request)
}

fn check_frontend(frontend: &str, attributes: &Attributes) -> Result<()> {
    let source = attributes.get("source").map(String::as_str);
    match (frontend, source) {
        ("dockerfile.v0", _) => {}
        ("gateway.v0", Some(source)) if is_built_in(source) => {}
        ("gateway.v0", Some(source)) => return Err(foreign(source)),
        ("gateway.v0", None) => return Err(Error::invalid("gateway.v0 needs the attribute source")),
        (other, _) => {
            return Err(Error::invalid(format!(
                "invalid frontend {other}: ferry has dockerfile.v0"
            )));
        }
    }
    match attributes.get("build-arg:BUILDKIT_SYNTAX") {
        Some(source) if !is_built_in(source) => Err(foreign(source)),
        _ => Ok(()),
    }
}

fn is_built_in(source: &str) -> bool {
    let source = source.trim().trim_start_matches("docker.io/");
    let name = source.split(['@', ':']).next().unwrap_or_default();
    BUILT_IN.contains(&name)
}

fn foreign(source: &str) -> Error {
    Error::invalid(format!(
        "the frontend {source} is an image: ferry has the frontend of Dockerfiles built in, and runs no others yet"
    ))
}

/// The context and the Dockerfile.
fn set_places(request: &mut Request, attributes: &Attributes) -> Result<()> {
    let key = |name: &str, usual: &str| attributes.get(name).map_or(usual, String::as_str).to_owned();
    let context = attributes.get("context").map(String::as_str).unwrap_or_default();
    request.context = match context {
        "" => Location::Directory(key("contextkey", "context")),
        url if url.starts_with(SESSION_URL) => Location::Upload(url.to_owned()),
        other if other.starts_with("input:") => {
            return Err(Error::invalid(
                "a build's result as the context is not there yet: name it by --build-context",
            ));
        }
        url => Location::Url(url.to_owned()),
    };
    // What is elsewhere has its own.
    if context.is_empty() || attributes.contains_key("dockerfilekey") {
        request.dockerfile = Some(Location::Directory(key("dockerfilekey", "dockerfile")));
    }
    Ok(())
}

fn set(request: &mut Request, name: &str, value: &str, inputs: &BTreeMap<String, Definition>) -> Result<()> {
    let text = || value.to_owned();
    if let Some((kind, name)) = name.split_once(':') {
        match kind {
            "build-arg" => drop(request.build_args.insert(name.to_owned(), text())),
            "label" => drop(request.labels.insert(name.to_owned(), text())),
            "context" => {
                let (name, _) = name.split_once("::").unwrap_or((name, ""));
                let named = named(name, value, inputs)?;
                request.contexts.insert(name.to_lowercase(), named);
            }
            "attest" => {
                return Err(Error::invalid(format!(
                    "attestations ({name}) are not there yet: build with --provenance=false --sbom=false"
                )));
            }
            // `input-metadata`, `local-sessionid`, `sharedkey`: what is known of inputs, or found out by the session itself.
            _ => {}
        }
        return Ok(());
    }
    match name {
        "filename" => request.filename = text(),
        "target" => request.target = text(),
        "platform" => request.platform = platform(value)?,
        "no-cache" if value.is_empty() => request.no_cache = NoCache::All,
        "no-cache" => request.no_cache = NoCache::Stages(value.split(',').map(str::to_owned).collect()),
        "image-resolve-mode" => request.pull = value == "pull",
        "multi-platform" if flag(name, value)? => {
            return Err(Error::invalid(
                "images for several platforms are not there yet: name one by --platform",
            ));
        }
        "contextsubdir" if !value.is_empty() => {
            return Err(Error::invalid(
                "contextsubdir is not there yet: name the directory in the context's URL (#ref:dir)",
            ));
        }
        "requestid" => request.call = Some(call(value)?),
        "add-hosts" => request.run.extra_hosts = hosts(value)?,
        "force-network-mode" => request.run.network = text(),
        "cgroup-parent" => request.run.cgroup_parent = text(),
        "hostname" => request.run.hostname = text(),
        "shm-size" => request.run.shm_size = number(name, value)?,
        "ulimit" => request.run.ulimits = ulimits(value)?,
        "memory" => request.run.limits.memory = number(name, value)?,
        "memswap" => request.run.limits.memory_swap = number(name, value)?,
        "cpushares" => request.run.limits.cpu_shares = number(name, value)?,
        "cpuperiod" => request.run.limits.cpu_period = number(name, value)?,
        "cpuquota" => request.run.limits.cpu_quota = number(name, value)?,
        "cpusetcpus" => request.run.limits.cpuset_cpus = text(),
        "cpusetmems" => request.run.limits.cpuset_mems = text(),
        "cache-from" => request.cache_from.extend(registries(value)?),
        "cache-imports" => request.cache_from.extend(imports(value)?),
        // Read above, or of no meaning here: `source`, `cmdline`, `frontend.caps`, and what BuildKit does not know either.
        _ => {}
    }
    Ok(())
}

fn named(name: &str, value: &str, inputs: &BTreeMap<String, Definition>) -> Result<Named> {
    let (kind, rest) = value.split_once(':').unwrap_or((value, ""));
    Ok(match kind {
        "local" => Named::Files(Location::Directory(rest.to_owned())),
        "docker-image" => Named::Image(rest.trim_start_matches("//").to_owned()),
        "input" => {
            let definition = inputs.get(rest);
            let id = definition.and_then(result).ok_or_else(|| {
                Error::invalid(format!(
                    "the input {rest} of the context {name} is no result of a build of this engine"
                ))
            })?;
            Named::Result(id)
        }
        "oci-layout" => {
            let wrong = || Error::invalid(format!("the context {name}: {value} names no manifest by its digest"));
            let (store, digest) = rest.trim_start_matches('/').rsplit_once('@').ok_or_else(wrong)?;
            let (store, _) = store.split_once(':').unwrap_or((store, ""));
            Named::Layout(Layout {
                store: format!("{LAYOUT}{store}"),
                digest: digest.parse().map_err(|_| wrong())?,
            })
        }
        _ => Named::Files(Location::Url(value.to_owned())),
    })
}

/// The id of the result that a definition of ours stands for.
pub fn result(definition: &Definition) -> Option<String> {
    let sources = definition
        .def
        .iter()
        .filter_map(|bytes| match Op::decode(bytes.clone()).ok()?.op? {
            op::Op::Source(source) => Some(source.identifier),
        });
    sources
        .into_iter()
        .find_map(|identifier| Some(identifier.strip_prefix(RESULT)?.to_owned()))
}

fn platform(value: &str) -> Result<Option<ferry_image::Platform>> {
    if value.contains(',') {
        return Err(Error::invalid(format!(
            "images for several platforms ({value}) are not there yet: build one platform at a time"
        )));
    }
    if value.is_empty() {
        return Ok(None);
    }
    value
        .parse()
        .map(Some)
        .map_err(|error: ferry_image::Error| Error::invalid(error.to_string()))
}

fn call(value: &str) -> Result<Call> {
    Ok(match value {
        "frontend.lint" => Call::Check,
        "frontend.outline" => Call::Outline,
        "frontend.targets" => Call::Targets,
        "frontend.subrequests.describe" => Call::Describe,
        other => return Err(Error::invalid(format!("unsupported subrequest {other}"))),
    })
}

/// `name=address,name=address`
fn hosts(value: &str) -> Result<Vec<(String, Address)>> {
    let hosts = value.split(',').filter(|part| !part.is_empty()).map(|part| {
        let wrong = || Error::invalid(format!("failed to parse additional hosts: invalid host {part}"));
        let (name, address) = part.trim_matches('"').split_once('=').ok_or_else(wrong)?;
        Ok((name.to_owned(), address.parse().map_err(|_| wrong())?))
    });
    hosts.collect()
}

/// `name=soft:hard,…`
fn ulimits(value: &str) -> Result<Vec<(String, i64, i64)>> {
    let limits = value.split(',').filter(|part| !part.is_empty()).map(|part| {
        let wrong = || Error::invalid(format!("failed to parse ulimit: invalid ulimit argument: {part}"));
        let (name, numbers) = part.split_once('=').ok_or_else(wrong)?;
        let (soft, hard) = numbers.split_once(':').unwrap_or((numbers, numbers));
        let number = |text: &str| text.parse().map_err(|_| wrong());
        Ok((name.to_owned(), number(soft)?, number(hard)?))
    });
    limits.collect()
}

/// Images, as clients named caches before there were several kinds.
fn registries(value: &str) -> Result<Vec<CacheSource>> {
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(|name| CacheSource::parse(&[name.to_owned()])).collect()
}

/// `[{"Type": "registry", "Attrs": {"ref": …}}, …]`
fn imports(value: &str) -> Result<Vec<CacheSource>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Import {
        r#type: String,
        #[serde(default)]
        attrs: Option<Attributes>,
    }
    let wrong = |error| Error::invalid(format!("failed to parse cache-imports: {error}"));
    let imports: Option<Vec<Import>> = json::from_slice(value.as_bytes()).map_err(wrong)?;
    let imports = imports.unwrap_or_default().into_iter();
    imports
        .map(|import| CacheSource::new(&import.r#type, import.attrs.unwrap_or_default()))
        .collect()
}

fn number(name: &str, value: &str) -> Result<i64> {
    let wrong = |_| Error::invalid(format!("failed to parse {name}: {value:?} is no number"));
    value.parse().map_err(wrong)
}

fn flag(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("invalid boolean value for {name}: {value:?}"))),
    }
}

fn allowed(entitlements: &[String]) -> Result<Entitlements> {
    let mut allowed = Entitlements::default();
    for name in entitlements {
        let (name, _) = name.split_once('=').unwrap_or((name, ""));
        match name {
            "network.host" => allowed.network_host = true,
            "security.insecure" => allowed.security_insecure = true,
            "device" => allowed.device = true,
            other => return Err(Error::invalid(format!("invalid entitlement {other:?}"))),
        }
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Request> {
        let attributes = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        request("dockerfile.v0", &attributes.collect(), &BTreeMap::new(), &[])
    }

    #[test]
    fn attributes_are_read() {
        let request = read(&[
            ("filename", "D"),
            ("no-cache", "a,b"),
            ("image-resolve-mode", "pull"),
            ("build-arg:A", "1"),
            ("label:l:m", "2"),
            ("context:Base", "docker-image://busybox"),
            ("context:src", "local:src"),
            ("context:far", "https://example.com/x.git"),
            (
                "context:kept",
                &format!("oci-layout://store:latest@sha256:{}", "0".repeat(64)),
            ),
            ("add-hosts", "a=1.2.3.4,b=::1,c=host-gateway"),
            ("ulimit", "nofile=1:2,core=0"),
            ("shm-size", "64"),
            ("requestid", "frontend.lint"),
            ("frontend.caps", "x"),
            ("cache-from", "a,b"),
            ("cache-imports", r#"[{"Type":"registry","Attrs":{"ref":"c"}}]"#),
        ])
        .unwrap();
        let caches = ["a", "b", "c"].map(|name| CacheSource::Registry(name.to_owned()));
        assert_eq!(request.cache_from, caches);
        assert_eq!(request.context, Location::Directory("context".to_owned()));
        assert_eq!(request.dockerfile, Some(Location::Directory("dockerfile".to_owned())));
        assert_eq!(request.filename, "D");
        assert_eq!(request.no_cache, NoCache::Stages(vec!["a".to_owned(), "b".to_owned()]));
        assert!(request.pull && request.call == Some(Call::Check));
        assert_eq!(
            (request.build_args["A"].as_str(), request.labels["l:m"].as_str()),
            ("1", "2")
        );
        assert_eq!(request.contexts["base"], Named::Image("busybox".to_owned()));
        assert_eq!(
            request.contexts["src"],
            Named::Files(Location::Directory("src".to_owned()))
        );
        assert!(matches!(&request.contexts["far"], Named::Files(Location::Url(url)) if url.starts_with("https")));
        assert!(matches!(&request.contexts["kept"], Named::Layout(layout) if layout.store == "oci:store"));
        assert_eq!(request.run.extra_hosts.len(), 3);
        assert_eq!(request.run.extra_hosts[2].1, Address::HostGateway);
        assert_eq!(request.run.ulimits[0], ("nofile".to_owned(), 1, 2));
        assert_eq!(request.run.ulimits[1], ("core".to_owned(), 0, 0));
    }

    #[test]
    fn a_context_that_is_elsewhere_has_its_own_dockerfile_unless_one_is_sent() {
        let url = "https://example.com/x.git";
        assert_eq!(read(&[("context", url)]).unwrap().dockerfile, None);
        let sent = read(&[("context", url), ("dockerfilekey", "dockerfile")]).unwrap();
        assert!(sent.dockerfile.is_some());
        let upload = read(&[("context", "http://buildkit-session/abc")]).unwrap();
        assert!(matches!(upload.context, Location::Upload(_)));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (name, value, text) in [
            ("platform", "linux/amd64,linux/arm64", "several platforms"),
            ("multi-platform", "true", "several platforms"),
            ("attest:sbom", "", "attestations (sbom)"),
            ("context:x", "oci-layout://x:latest", "by its digest"),
            ("context:x", "input:x", "no result"),
            ("build-arg:BUILDKIT_SYNTAX", "me/mine", "me/mine"),
            ("requestid", "x", "unsupported subrequest x"),
            ("add-hosts", "x", "invalid host x"),
            ("ulimit", "nofile", "invalid ulimit"),
            ("memory", "1g", "no number"),
            ("cache-imports", r#"[{"Type":"gha"}]"#, "type gha"),
            ("cache-imports", "x", "cache-imports"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(text), "{name}={value}: {error}");
        }
        let none = (&BTreeMap::new(), &BTreeMap::new());
        assert!(request("x.v0", none.0, none.1, &[]).is_err());
        assert!(request("gateway.v0", none.0, none.1, &[]).is_err());
        assert!(request("dockerfile.v0", none.0, none.1, &["root".to_owned()]).is_err());
        let source = |source: &str| BTreeMap::from([("source".to_owned(), source.to_owned())]);
        let built_in = [
            "docker/dockerfile:1",
            "docker.io/docker/dockerfile:1.9@sha256:00",
            "docker/dockerfile-upstream",
        ];
        for name in built_in {
            assert!(request("gateway.v0", &source(name), none.1, &[]).is_ok(), "{name}");
        }
        assert!(request("gateway.v0", &source("docker/dockerfile-evil"), none.1, &[]).is_err());
    }
}
