//! A policy of SELinux's for the second boot, compiled here and loaded by the tests: Debian's kernel has SELinux, but runs
//! AppArmor unless it is told otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::shell;

const SUITE: &str = "bookworm";
/// The compiler, and its library, which is not on every machine.
const PACKAGES: [&str; 2] = ["secilc", "libsepol2"];

/// What is not named is allowed: only the permissions listed here are decided. Only what has a class here can be given a label. What the tests look for is in
/// `tests/tests/oci_selinux.rs`.
const POLICY: &str = "\
(handleunknown allow)
(policycap nnp_nosuid_transition)
(mls true)

(class process (transition dyntransition))
(class file (read entrypoint))
(class dir (read))
(class key (view))
(classorder (process file dir key))

(sid kernel)
(sid security)
(sid unlabeled)
(sid fs)
(sid file)
(sidorder (kernel security unlabeled fs file))

(sensitivity s0)
(sensitivityorder (s0))
(category c0)
(category c1)
(categoryorder (c0 c1))
(sensitivitycategory s0 (c0 c1))
(levelrange every_level ((s0) (s0 (c0 c1))))
(levelrange no_category ((s0) (s0)))

(type kernel_t)
(type file_t)
(type container_t)
(type container_exec_t)
(type container_file_t)
(type secret_t)
(typeattribute every)
(typeattributeset every (all))
(typeattribute container)
(typeattributeset container (container_t container_exec_t))
(typeattribute readable)
(typeattributeset readable (not secret_t))

(role object_r)
(role system_r)
(roletype object_r every)
(roletype system_r kernel_t)
(roletype system_r container)
(user system_u)
(userrole system_u object_r)
(userrole system_u system_r)
(userlevel system_u (s0))
(userrange system_u every_level)

(allow kernel_t every (process (transition dyntransition)))
(allow kernel_t every (file (read entrypoint)))
(allow kernel_t every (dir (read)))
(allow kernel_t every (key (view)))
(allow container readable (file (read entrypoint)))
(allow container every (dir (read)))
(allow container self (key (view)))
(mlsconstrain (file (read)) (dom h1 h2))

(context kernel (system_u system_r kernel_t every_level))
(context file (system_u object_r file_t no_category))
(sidcontext kernel kernel)
(sidcontext security file)
(sidcontext unlabeled file)
(sidcontext fs file)
(sidcontext file file)
(fsuse xattr ext4 file)
(fsuse xattr overlay file)
(fsuse trans devpts file)
(fsuse trans devtmpfs file)
(fsuse trans mqueue file)
(fsuse trans tmpfs file)
(fsuse task pipefs file)
(fsuse task sockfs file)
(genfscon cgroup / file)
(genfscon proc / file)
(genfscon sysfs / file)
";

/// The compiled policy, below `tools`; made anew when its source is another, by a compiler that is only unpacked.
pub fn policy(tools: &Path) -> Result<PathBuf> {
    let dir = tools.join("selinux");
    let (source, compiled) = (dir.join("policy.cil"), dir.join("policy"));
    if compiled.is_file() && fs::read_to_string(&source).is_ok_and(|text| text == POLICY) {
        return Ok(compiled);
    }
    if !dir.join("usr/bin/secilc").is_file() {
        let (lists, fresh) = (tools.join("apt/selinux"), tools.join("selinux.new"));
        let _ = fs::remove_dir_all(&fresh);
        let apt = Apt::update(&lists, SUITE)?;
        for package in PACKAGES {
            apt.unpack(package, &fresh)?;
        }
        fs::rename(&fresh, &dir).context("put the policy's compiler in place")?;
        fs::remove_dir_all(&lists).context("remove the package lists")?;
    }
    let _ = fs::remove_file(&compiled);
    fs::write(&source, POLICY).context("write the policy")?;
    let mut compiler = Command::new(dir.join("usr/bin/secilc"));
    compiler.env("LD_LIBRARY_PATH", dir.join("lib/x86_64-linux-gnu"));
    compiler.args(["--filecontext", "/dev/null", "--output"]);
    shell::output(compiler.arg(&compiled).arg(&source))?;
    Ok(compiled)
}
