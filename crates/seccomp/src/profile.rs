//! Docker's profile format: OCI's with `archMap`, `includes` and `excludes` (moby/profiles/seccomp).

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSeccompFilterFlag,
    LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;

use crate::arch::Arch;
use crate::error::{Error, Result};

/// Docker Engine 28.5.2's own, but for one thing: sockets of AF_ALG are refused, as Docker does since 29.4.2 (CVE-2026-31431).
const DEFAULT: &str = include_str!("docker-default.json");

/// A profile before it is known for which container and machine it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    default_action: Option<LinuxSeccompAction>,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<OciArch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<std::path::PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: OciArch,
    sub_architectures: Option<Vec<OciArch>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: Option<LinuxSeccompAction>,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Where a profile is going to be used.
struct Target<'a> {
    caps: &'a BTreeSet<String>,
    kernel: (u32, u32),
    arch: &'static str,
}

/// Reads what `--security-opt seccomp=FILE` names.
pub fn parse_docker_profile(json: &[u8]) -> Result<Profile> {
    serde_json::from_slice(json).map_err(Error::Json)
}

/// Docker's default profile for a container with the bounding set `caps` (`CAP_…`) on a kernel (such as `(6, 18)`).
pub fn default_profile(caps: &BTreeSet<String>, kernel: (u32, u32), arch: Arch) -> Result<LinuxSeccomp> {
    let profile = parse_docker_profile(DEFAULT.as_bytes())?;
    Ok(profile.resolve(caps, kernel, arch)?.unwrap_or_default())
}

impl Profile {
    /// Decides every `includes` and `excludes`. `None`: the profile is empty, which Docker takes for "no seccomp".
    pub fn resolve(&self, caps: &BTreeSet<String>, kernel: (u32, u32), arch: Arch) -> Result<Option<LinuxSeccomp>> {
        let rules = self.syscalls.as_deref().unwrap_or_default();
        let Some(default_action) = self.default_action else {
            return match rules {
                [] => Ok(None),
                _ => Err(Error::Unknown(String::new())),
            };
        };
        let listed = self.architectures.as_deref().unwrap_or_default();
        let map = self.arch_map.as_deref().unwrap_or_default();
        if !listed.is_empty() && !map.is_empty() {
            return Err(Error::Both("architectures", "archMap"));
        }
        let mut architectures = listed.to_vec();
        if let Some(own) = map.iter().find(|entry| entry.architecture == arch.to_oci()) {
            architectures.push(own.architecture);
            architectures.extend(own.sub_architectures.iter().flatten());
        }
        let target = Target {
            caps,
            kernel,
            arch: arch.docker_name(),
        };
        let mut syscalls = Vec::new();
        for rule in rules {
            syscalls.extend(rule.resolve(&target)?);
        }

        let mut builder = LinuxSeccompBuilder::default()
            .default_action(default_action)
            .syscalls(syscalls);
        if !architectures.is_empty() {
            builder = builder.architectures(architectures);
        }
        if let Some(errno) = self.default_errno_ret {
            builder = builder.default_errno_ret(errno);
        }
        if let Some(flags) = &self.flags {
            builder = builder.flags(flags.clone());
        }
        if let Some(path) = &self.listener_path {
            builder = builder.listener_path(path.clone());
        }
        if let Some(metadata) = &self.listener_metadata {
            builder = builder.listener_metadata(metadata.clone());
        }
        builder
            .build()
            .map(Some)
            .map_err(|error| Error::Unknown(error.to_string()))
    }
}

impl Rule {
    fn resolve(&self, target: &Target<'_>) -> Result<Option<LinuxSyscall>> {
        let several = self.names.as_deref().unwrap_or_default();
        let names = match self.name.as_deref() {
            None | Some("") => several.to_vec(),
            Some(_) if !several.is_empty() => return Err(Error::Both("name", "names")),
            Some(name) => vec![name.to_owned()],
        };
        if let Some(excludes) = &self.excludes
            && excludes.meets_any(target)?
        {
            return Ok(None);
        }
        if let Some(includes) = &self.includes
            && !includes.meets_all(target)?
        {
            return Ok(None);
        }
        let action = self.action.ok_or_else(|| Error::Unknown(String::new()))?;
        let mut builder = LinuxSyscallBuilder::default().names(names).action(action);
        if let Some(errno) = self.errno_ret {
            builder = builder.errno_ret(errno);
        }
        if let Some(args) = &self.args {
            builder = builder.args(args.clone());
        }
        builder
            .build()
            .map(Some)
            .map_err(|error| Error::Unknown(error.to_string()))
    }
}

impl Filter {
    fn meets_any(&self, target: &Target<'_>) -> Result<bool> {
        let arch = self.arches.iter().flatten().any(|arch| arch == target.arch);
        let caps = self.caps.iter().flatten().any(|cap| target.caps.contains(cap));
        let kernel = self
            .min_kernel
            .as_deref()
            .map(version)
            .transpose()?
            .is_some_and(|min| target.kernel >= min);
        Ok(arch || caps || kernel)
    }

    fn meets_all(&self, target: &Target<'_>) -> Result<bool> {
        let arches = self.arches.as_deref().unwrap_or_default();
        let arch = arches.is_empty() || arches.iter().any(|arch| arch == target.arch);
        let caps = self.caps.iter().flatten().all(|cap| target.caps.contains(cap));
        let kernel = self
            .min_kernel
            .as_deref()
            .map(version)
            .transpose()?
            .is_none_or(|min| target.kernel >= min);
        Ok(arch && caps && kernel)
    }
}

fn version(text: &str) -> Result<(u32, u32)> {
    let invalid = || Error::KernelVersion(text.chars().take(40).collect());
    let (kernel, major) = text.split_once('.').ok_or_else(invalid)?;
    let digits = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| part.parse().ok())
            .flatten()
    };
    match (digits(kernel), digits(major)) {
        (Some(kernel), Some(major)) if (kernel, major) != (0, 0) => Ok((kernel, major)),
        _ => Err(invalid()),
    }
}
