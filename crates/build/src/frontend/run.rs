//! `RUN`: the process, and what it is given.

use std::collections::BTreeMap;

use ferry_dockerfile::instruction::{
    CommandLine, Expander, Instruction, Mount, MountKind as Kind, Network, Run, Script, Security, Sharing,
};
use ferry_dockerfile::{Problem, path};

use super::Making;
use super::instructions::command_line;
use super::names::{shown, summary};
use super::stage::{Noted, Stage};
use crate::error::{Error, Result};
use crate::graph::{Exec, ExecMount, MountKind, Op, Step, StepId};
use crate::workspace::Workspace;

/// Arguments that every build may give, without an `ARG`, and that are in neither cache nor history.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
/// Where a script of the Dockerfile's own is mounted.
const PIPES: &str = "/dev/pipes";

impl<W: Workspace> Making<'_, W> {
    pub async fn run(&mut self, stage: &mut Stage, instruction: &Instruction, run: &Run) -> Result<()> {
        let at = |problem: Problem| Error::from(problem.at(instruction.range));
        let mut mounts = Vec::new();
        let mut what = instruction.text.clone();
        let mut scripted = None;
        match run.script() {
            None => {}
            Some(Script::Program { name, content }) => {
                what.push_str(&format!(" {}", summary(&content)));
                let target = format!("{PIPES}/{name}");
                scripted = Some(CommandLine::Shell(target.clone()));
                let kind = MountKind::Document { content, mode: 0o755 };
                mounts.push(ExecMount { target, kind });
            }
            Some(Script::Shell(text)) => {
                if run.documents.len() == 1 {
                    what.push_str(&format!(" {}", summary(&text)));
                }
                scripted = Some(CommandLine::Shell(String::from_utf8_lossy(&text).into_owned()));
            }
        }
        let args = command_line(stage, scripted.as_ref().unwrap_or(&run.command));
        let variables = stage.variables.clone();
        let mut expander = Expander::new(self.file.escape, &variables);
        expander.spent = self.spent;
        let given = run.mounts(&mut expander).map_err(at)?;
        let devices = run.devices(&mut expander).map_err(at)?;
        self.spent = expander.spent;
        let mut inputs: Vec<StepId> = stage.files.into_iter().collect();
        let mut agents = 0;
        for mount in &given {
            let mount = self.mount(stage, instruction, mount, &mut inputs, &mut agents);
            mounts.extend(Box::pin(mount).await?);
        }
        self.entitled(run, !devices.is_empty()).map_err(at)?;
        let options = &self.job.request.run;
        let network = match run.network {
            Network::Default if options.network.is_empty() => "default".to_owned(),
            Network::Default => options.network.clone(),
            Network::None => "none".to_owned(),
            Network::Host => "host".to_owned(),
        };
        let hostname = self.job.request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
        let mut env: Vec<String> = stage.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let agent = mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
        if let Some(agent) = agent.filter(|_| !stage.variables.contains_key("SSH_AUTH_SOCK")) {
            env.push(format!("SSH_AUTH_SOCK={}", agent.target));
        }
        let exec = Exec {
            args: args.clone(),
            env,
            proxies: self.proxies(stage),
            cwd: stage.workdir.clone(),
            user: stage.user.clone(),
            hostname: hostname.unwrap_or(&options.hostname).clone(),
            network,
            insecure: run.security == Security::Insecure,
            extra_hosts: options.extra_hosts.clone(),
            shm_size: options.shm_size,
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            limits: options.limits.clone(),
            devices: devices
                .into_iter()
                .map(|device| (device.name, device.required))
                .collect(),
            has_root: stage.files.is_some(),
            mounts,
        };
        let name = stage.numbering.next(&shown(&what, &stage.variables));
        stage.files = Some(self.add(Step {
            op: Op::Exec(Box::new(exec)),
            inputs,
            name,
            ranges: vec![instruction.range],
            no_cache: stage.no_cache,
        }));
        let created_by = format!("RUN {}", history(stage, &args));
        stage.note(created_by, Noted::Files);
        Ok(())
    }

    /// What a step asks for that the user has to allow.
    fn entitled(&self, run: &Run, devices: bool) -> Result<(), Problem> {
        let allowed = self.job.request.entitlements;
        for (asked, allowed, name) in [
            (run.network == Network::Host, allowed.network_host, "network.host"),
            (
                run.security == Security::Insecure,
                allowed.security_insecure,
                "security.insecure",
            ),
            (devices, allowed.device, "device"),
        ] {
            if asked && !allowed {
                return Err(Problem::Invalid(format!(
                    "granting entitlement {name} is not allowed by build daemon configuration: allow it with --allow {name}"
                )));
            }
        }
        if devices {
            return Err(Problem::Invalid(
                "RUN --device is not there yet: run the step in a container with --device, and copy what it makes"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Those that no `ARG` has made the stage's own.
    fn proxies(&self, stage: &Stage) -> BTreeMap<String, String> {
        let is_proxy = |name: &str| PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy));
        let given = self.job.request.build_args.iter();
        given
            .filter(|(name, _)| is_proxy(name) && !stage.variables.contains_key(*name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    async fn mount(
        &mut self,
        stage: &Stage,
        instruction: &Instruction,
        mount: &Mount,
        inputs: &mut Vec<StepId>,
        agents: &mut usize,
    ) -> Result<Option<ExecMount>> {
        let at = |problem: Problem| Error::from(problem.at(instruction.range));
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let place = || mount.place(&stage.workdir).map_err(at);
        let (target, kind) = match mount.kind {
            Kind::Bind => {
                let source = path::join("/", &mount.source);
                let Some(step) = self.mounted(stage, instruction, mount, &source).await? else {
                    return Err(Error::from(
                        Problem::Invalid(format!("{:?} has no files to mount", mount.from)).at(instruction.range),
                    ));
                };
                let input = input_of(inputs, step);
                let kind = MountKind::Bind {
                    input,
                    source,
                    writable: !mount.read_only,
                };
                (place()?, kind)
            }
            Kind::Cache => {
                let target = place()?;
                let source = path::join("/", &mount.source);
                let step = match mount.from.is_empty() {
                    true => None,
                    false => self.mounted(stage, instruction, mount, &source).await?,
                };
                let id = match mount.id.as_str() {
                    "" => path::clean(&mount.target),
                    id => id.to_owned(),
                };
                let namespace = self.job.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
                let id = match namespace.filter(|namespace| !namespace.is_empty()) {
                    Some(namespace) => format!("{namespace}/{id}"),
                    None => id,
                };
                let kind = MountKind::Cache {
                    id,
                    sharing: mount.sharing.unwrap_or(Sharing::Shared).into(),
                    input: step.map(|step| input_of(inputs, step)),
                    source,
                    writable: !mount.read_only,
                    mode: mount.mode.unwrap_or(0o755),
                    uid,
                    gid,
                };
                (target, kind)
            }
            Kind::Tmpfs => (place()?, MountKind::Tmpfs { size: mount.size }),
            Kind::Secret => {
                let id = [&mount.source, &mount.id]
                    .into_iter()
                    .find(|id| !id.is_empty())
                    .map_or_else(|| basename(&mount.target), Clone::clone);
                let target = match (mount.target.as_str(), &mount.env) {
                    ("", Some(_)) => String::new(),
                    ("", None) => format!("/run/secrets/{}", basename(&id)),
                    (target, _) => path::join(&stage.workdir, target),
                };
                let kind = MountKind::Secret {
                    id,
                    env: mount.env.clone(),
                    required: mount.required,
                    mode: mount.mode.unwrap_or(0o400),
                    uid,
                    gid,
                };
                (target, kind)
            }
            Kind::Ssh => {
                let target = match mount.target.as_str() {
                    "" => format!("/run/buildkit/ssh_agent.{agents}"),
                    target => path::join(&stage.workdir, target),
                };
                *agents += 1;
                let kind = MountKind::Ssh {
                    id: mount.id.clone(),
                    required: mount.required,
                    mode: mount.mode.unwrap_or(0o600),
                    uid,
                    gid,
                };
                (target, kind)
            }
        };
        Ok(Some(ExecMount { target, kind }))
    }

    /// The tree that a mount shows.
    async fn mounted(
        &mut self,
        stage: &Stage,
        instruction: &Instruction,
        mount: &Mount,
        source: &str,
    ) -> Result<Option<StepId>> {
        let step = match mount.from.as_str() {
            "" => Some(self.context(source)),
            from => {
                let origin = self.scope.mounted_from(from);
                self.from(origin, from, &stage.platform, instruction.range).await?
            }
        };
        Ok(step.map(|step| self.as_tree(step, source, instruction.range)))
    }
}

fn input_of(inputs: &mut Vec<StepId>, step: StepId) -> usize {
    inputs.push(step);
    inputs.len() - 1
}

fn basename(path: &str) -> String {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The command with the arguments it had.
fn history(stage: &Stage, args: &[String]) -> String {
    let mut given: Vec<(&str, String)> = Vec::new();
    for (name, value) in &stage.arguments {
        let value = stage
            .variables
            .get(name)
            .or(value.as_ref())
            .cloned()
            .unwrap_or_default();
        match given.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => given.push((name, value)),
        }
    }
    let mut words = Vec::new();
    if !given.is_empty() {
        words.push(format!("|{}", given.len()));
        words.extend(given.iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend(args.iter().cloned());
    words.join(" ")
}
