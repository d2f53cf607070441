//! The runtime's own process, in the moment in which it is in the container and not yet the container's program.

use std::fs;
use std::time::Instant;

use crate::bundle::Bundle;
use crate::error::{During as _, Result};
use crate::lab::Lab;
use crate::outcome::{Attack, Outcome};
use crate::probe::{SEEN, STOP};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "exec-look",
        family: "F1",
        cves: &["2016-9962"],
        what: "the container's root looks into the processes that exec brings",
        run: look,
    },
    Attack {
        name: "exe-overwrite",
        family: "F1",
        cves: &["2019-5736"],
        what: "the runtime's binary is opened for writing by /proc/PID/exe, also as `#!/proc/self/exe`",
        run: overwrite,
    },
];

/// Runs `round` while the container's first process watches all others; what it has seen.
fn watched(lab: &Lab, bundle: &mut Bundle<'_>, mut round: impl FnMut(&Bundle<'_>) -> Result<()>) -> Result<String> {
    bundle.up(&["watch=/probe"])?;
    let end = Instant::now() + lab.race;
    let mut count = 0;
    while count < 10 || Instant::now() < end {
        count += 1;
        round(bundle)?;
    }
    fs::write(bundle.rootfs().join(STOP), "").during(|| "stop the watcher")?;
    Ok(fs::read_to_string(bundle.rootfs().join(SEEN)).unwrap_or_default())
}

fn look(lab: &Lab) -> Result<Outcome> {
    let mut bundle = Bundle::new(lab)?;
    let copy = bundle.rootfs().join("other");
    fs::hard_link(lab.dir.join("probe"), copy).during(|| "link the probe")?;
    let seen = watched(lab, &mut bundle, |bundle| {
        if lab.wrong {
            // A process that may be looked into, and is not the image's own as far as the watcher knows.
            bundle.exec_with("/other", &["nap"])?;
        } else {
            bundle.exec(&[], &["ids"])?.must()?;
        }
        Ok(())
    })?;
    let some: String = seen.chars().take(200).collect();
    Ok((!seen.is_empty()).then(|| format!("seen from inside: {some}")).into())
}

fn overwrite(lab: &Lab) -> Result<Outcome> {
    let mut bundle = Bundle::new(lab)?;
    bundle.file("entry", "#!/proc/self/exe\n")?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.rootfs().join("entry"), executable).during(|| "make a script executable")?;
    if lab.wrong {
        // A binary of the container's own stands for the runtime's.
        let copy = bundle.rootfs().join("other");
        fs::copy(lab.dir.join("probe"), copy).during(|| "copy the probe")?;
    }
    let mut turn = 0;
    let seen = watched(lab, &mut bundle, |bundle| {
        turn += 1;
        if lab.wrong {
            bundle.exec_with("/other", &["nap"])?;
        } else if turn % 2 == 0 {
            // Whatever comes of it: it is the runtime that runs here.
            bundle.exec_program("/entry")?;
        } else {
            bundle.exec(&[], &["ids"])?;
        }
        Ok(())
    })?;
    let writable: Vec<&str> = seen.split("; ").filter(|seen| seen.starts_with("writable")).collect();
    Ok((!writable.is_empty()).then_some(writable.join("; ")).into())
}
