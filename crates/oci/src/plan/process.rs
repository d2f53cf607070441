//! `process`: of a container, of `exec --process`, of `exec` with flags.

use ferry_runtime::caps;
use ferry_runtime::plan::{Attached, Capabilities, Process, Rlimit, Scheduler, User};

use super::Host;
use crate::config;
use crate::error::{Error, Result};

/// Checks the process in `field` and turns its names into numbers.
pub(crate) fn process(
    process: &config::Process,
    field: &str,
    host: Host,
    warnings: &mut Vec<String>,
) -> Result<Process> {
    let args = process.args.clone().unwrap_or_default();
    if args.is_empty() {
        return Err(Error::Invalid("args must not be empty".to_owned()));
    }
    let cwd = process.cwd.clone().unwrap_or_default();
    if cwd.is_empty() {
        return Err(Error::Invalid("Cwd property must not be empty".to_owned()));
    }
    if !cwd.starts_with('/') {
        return Err(Error::Invalid("Cwd must be an absolute path".to_owned()));
    }
    let env = process.env.clone().unwrap_or_default();
    if let Some(entry) = env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        let problem = format!("invalid environment variable {entry:?}: it has no name or no '='");
        return Err(Error::config(format!("{field}.env"), problem));
    }
    let user = process.user.clone().unwrap_or_default();
    if user.uid == u32::MAX || user.gid == u32::MAX {
        return Err(Error::config(format!("{field}.user"), "4294967295 is not an id"));
    }
    if let Some(adjustment) = process.oom_score_adj
        && !(-1000..=1000).contains(&adjustment)
    {
        let problem = format!("{adjustment} is not in the range -1000 to 1000");
        return Err(Error::config(format!("{field}.oomScoreAdj"), problem));
    }
    let size = process.console_size.as_ref().and_then(|size| {
        let size = (u16::try_from(size.height).ok()?, u16::try_from(size.width).ok()?);
        (size != (0, 0)).then_some(size)
    });
    Ok(Process {
        args,
        env,
        cwd: cwd.into(),
        make_cwd: false,
        user: User::Ids {
            uid: user.uid,
            gid: user.gid,
            groups: user.additional_gids.unwrap_or_default(),
        },
        capabilities: capabilities(process.capabilities.as_ref(), warnings),
        no_new_privileges: process.no_new_privileges.unwrap_or(false),
        rlimits: rlimits(process)?,
        oom_score_adj: process.oom_score_adj,
        umask: user.umask,
        terminal: process.terminal.unwrap_or(false),
        size,
        init: false,
        kernel: attached(process, field, host)?,
    })
}

/// Unknown capabilities are left out with a warning (config.md, "capabilities").
fn capabilities(given: Option<&config::Capabilities>, warnings: &mut Vec<String>) -> Capabilities {
    let nothing = config::Capabilities::default();
    let given = given.unwrap_or(&nothing);
    let mut mask = |names: &'_ Option<Vec<String>>| {
        let mut mask = 0;
        for name in names.iter().flatten() {
            match caps::bit(name).filter(|_| name.starts_with("CAP_")) {
                Some(bit) => mask |= bit,
                None => warnings.push(format!("ignoring unknown or unavailable capabilities: [{name}]")),
            }
        }
        mask
    };
    let capabilities = Capabilities {
        bounding: mask(&given.bounding),
        effective: mask(&given.effective),
        permitted: mask(&given.permitted),
        inheritable: mask(&given.inheritable),
        ambient: mask(&given.ambient),
    };
    warnings.dedup();
    capabilities
}

const RLIMITS: [&str; 16] = [
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
];

fn rlimits(process: &config::Process) -> Result<Vec<Rlimit>> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for limit in process.rlimits.iter().flatten() {
        if !RLIMITS.contains(&limit.kind.as_str()) {
            return Err(Error::Invalid(format!("wrong rlimit value: {}", limit.kind)));
        }
        let name = limit.kind.trim_start_matches("RLIMIT_").to_lowercase();
        if limits.iter().any(|known| known.name == name) {
            return Err(Error::config(
                "process.rlimits",
                format!("{} is given twice", limit.kind),
            ));
        }
        if limit.soft > limit.hard {
            let problem = format!("{}: the soft limit is above the hard one", limit.kind);
            return Err(Error::config("process.rlimits", problem));
        }
        limits.push(Rlimit {
            name,
            soft: limit.soft,
            hard: limit.hard,
        });
    }
    Ok(limits)
}

fn attached(process: &config::Process, field: &str, host: Host) -> Result<Attached> {
    let named = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    let attached = Attached {
        scheduler: process
            .scheduler
            .as_ref()
            .map(|given| scheduler(given, field))
            .transpose()?,
        io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
        personality: None,
        memory_policy: None,
        cpus: Vec::new(),
        apparmor: named(&process.apparmor_profile),
        selinux: named(&process.selinux_label),
    };
    refuse_labels(&attached, host)?;
    // Nothing is confined by a module that is not there.
    let apparmor = attached
        .apparmor
        .filter(|profile| profile != "unconfined" || host.apparmor);
    Ok(Attached { apparmor, ..attached })
}

/// Labels for a security module that this kernel does not run.
fn refuse_labels(attached: &Attached, host: Host) -> Result<()> {
    if attached
        .apparmor
        .as_deref()
        .is_some_and(|profile| profile != "unconfined")
        && !host.apparmor
    {
        let text = "apparmor profile is specified in config, but apparmor is disabled or not supported";
        return Err(Error::Invalid(text.to_owned()));
    }
    if attached.selinux.is_some() && !host.selinux {
        let text = "selinux label is specified in config, but selinux is disabled or not supported";
        return Err(Error::Invalid(text.to_owned()));
    }
    Ok(())
}

/// sched_setattr(2), linux/sched.h.
fn scheduler(given: &config::Scheduler, field: &str) -> Result<Scheduler> {
    let policy = match given.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(Error::Invalid(format!("invalid scheduler policy: {other}"))),
    };
    let mut flags = 0;
    for flag in given.flags.iter().flatten() {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(Error::Invalid(format!("invalid scheduler flag: {other}"))),
        };
    }
    let priority = u32::try_from(given.priority).map_err(|_| {
        let problem = format!("{} is no priority", given.priority);
        Error::config(format!("{field}.scheduler.priority"), problem)
    })?;
    Ok(Scheduler {
        policy,
        flags,
        nice: given.nice,
        priority,
        runtime: given.runtime,
        deadline: given.deadline,
        period: given.period,
    })
}

fn io_priority(given: &config::IoPriority) -> Result<(u32, u32)> {
    let class = match given.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(Error::Invalid(format!("invalid ioPriority.Class: {other}"))),
    };
    match u32::try_from(given.priority) {
        Ok(priority @ 0..=7) => Ok((class, priority)),
        _ => Err(Error::Invalid(format!(
            "invalid ioPriority.Priority: {}",
            given.priority
        ))),
    }
}
