//! Who a process is: numbers, and the image's user files.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::call::Ended;
use crate::error::{During as _, Result};
use crate::lab::{GROUP, Lab};
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "numeric-name",
        family: "F1",
        cves: &["2016-3697"],
        what: "a number is a name in the image's user files, with another id",
        run: number,
    },
    Attack {
        name: "exec-user",
        family: "F1",
        cves: &["2026-30892"],
        what: "exec --user with signs, spaces, hexadecimal digits and numbers out of range",
        run: parsing,
    },
    Attack {
        name: "id-range",
        family: "F1",
        cves: &["2024-40635", "2026-46680"],
        what: "ids that do not fit, which would wrap around to root's",
        run: range,
    },
    Attack {
        name: "groups",
        family: "F3",
        cves: &["2022-36109", "2022-2989", "2022-2990", "2022-2995", "2023-25173"],
        what: "supplementary groups that nobody gave: the image's, the caller's, too few",
        run: groups,
    },
    Attack {
        name: "users-fifo",
        family: "F3",
        cves: &["2024-9676"],
        what: "the image's user files are FIFOs",
        run: |lab| files(lab, fifo),
    },
    Attack {
        name: "users-zero",
        family: "F3",
        cves: &["2024-9676"],
        what: "the image's user files are links to /dev/zero",
        run: |lab| files(lab, zero),
    },
    Attack {
        name: "users-sparse",
        family: "F3",
        cves: &["2026-47262"],
        what: "the image's user files have 4 GiB",
        run: |lab| files(lab, sparse),
    },
    Attack {
        name: "users-lines",
        family: "F3",
        cves: &["2026-47262"],
        what: "the image's user files have 10,000,000 lines",
        run: |lab| files(lab, lines),
    },
];

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/\n+1000:x:0:0::/:/\nuser:x:1000:1000::/:/\n";
const GROUPS: &str = "root:x:0:user,1000\n1000:x:0:\nwheel:x:10:user,1000,root\n";

fn with_users<'a>(lab: &'a Lab, uid: &Value, gid: &Value) -> Result<Bundle<'a>> {
    let bundle = Bundle::new(lab)?.with("process.user", json!({ "uid": uid, "gid": gid }));
    bundle.file("etc/passwd", PASSWD)?;
    bundle.file("etc/group", GROUPS)?;
    Ok(bundle)
}

/// User and group of a probe that ran.
fn of(ended: &Ended) -> Option<(u32, u32)> {
    let mut ids = ended.of("ids")?.split(' ').map_while(|word| word.parse().ok());
    Some((ids.next()?, ids.next()?))
}

fn number(lab: &Lab) -> Result<Outcome> {
    let uid = json!(if lab.wrong { 0 } else { 1000 });
    let ended = with_users(lab, &uid, &json!(1000))?.must_run(&["ids"])?;
    if of(&ended) != Some((1000, 1000)) {
        return Outcome::broken(format!("run as 1000:1000 is {:?}", of(&ended)));
    }
    let mut bundle = with_users(lab, &json!(7), &json!(1000))?;
    bundle.up(&["sleep"])?;
    for user in ["1000", "1000:1000"] {
        let ids = of(&bundle.exec(&["--user", user], &["ids"])?.must()?);
        if ids != Some((1000, 1000)) {
            return Outcome::broken(format!("exec --user {user} is {ids:?}"));
        }
    }
    Ok(Outcome::Held)
}

fn parsing(lab: &Lab) -> Result<Outcome> {
    // What may come of it apart from an error, by a generous reading.
    let exact: &[(u32, u32)] = &[(1000, 7), (1000, 1000)];
    let none: &[(u32, u32)] = &[];
    let cases: &[(&str, &[(u32, u32)])] = &[
        ("1000", exact),
        ("1000:1000", exact),
        ("+1000", exact),
        ("01000", exact),
        ("1000:", exact),
        ("", &[(7, 7)]),
        (" 1000", none),
        ("1000 ", none),
        ("1000x", none),
        ("1000:1000x", none),
        ("1000:1000:0", none),
        ("0x3e8", none),
        ("-1", none),
        ("-0", &[(0, 7)]),
        ("1000:-1", none),
        (":", &[(7, 7)]),
        (":0", &[(7, 0)]),
        ("root", &[(0, 0)]),
        ("x", none),
        ("4294967295", none),
        ("4294967296", none),
        ("8589935592", none),
        ("18446744073709551616", none),
        ("1000:4294967296", none),
    ];
    let mut bundle = with_users(lab, &json!(7), &json!(7))?;
    bundle.up(&["sleep"])?;
    for (user, allowed) in cases {
        let ended = bundle.exec(&["--user", if lab.wrong { "0" } else { user }], &["ids"])?;
        if let Some(ids) = of(&ended)
            && !allowed.contains(&ids)
        {
            return Outcome::broken(format!("exec --user {user:?} is {}:{}", ids.0, ids.1));
        }
    }
    Ok(Outcome::Held)
}

fn range(lab: &Lab) -> Result<Outcome> {
    let values = [
        json!(4_294_967_296_u64),
        json!(4_294_967_295_u64),
        json!(2_147_483_648_u64),
        json!(8_589_934_592_u64),
        json!(-1),
        json!("0"),
        json!(1.5),
        json!(18_446_744_073_709_551_615_u64),
    ];
    for value in &values {
        let seven = json!(7);
        for (uid, gid) in [(value, &seven), (&seven, value)] {
            let zero = json!(0);
            let (set_uid, set_gid) = if lab.wrong { (&zero, &zero) } else { (uid, gid) };
            let ended = with_users(lab, set_uid, set_gid)?.run(&["ids"])?;
            if let Some((real_uid, real_gid)) = of(&ended)
                && (json!(real_uid), json!(real_gid)) != (uid.clone(), gid.clone())
            {
                return Outcome::broken(format!("{uid}:{gid} is {real_uid}:{real_gid}"));
            }
        }
    }
    Ok(Outcome::Held)
}

fn groups(lab: &Lab) -> Result<Outcome> {
    let words = |ended: &Ended| -> Vec<u32> {
        let ids = ended.of("ids").unwrap_or_default();
        ids.split(' ').skip(2).map_while(|word| word.parse().ok()).collect()
    };
    let check = |how: &str, ended: &Ended, given: &[u32]| {
        let groups = words(ended);
        let foreign = groups.iter().find(|group| **group != 1000 && !given.contains(group));
        let missing = given.iter().find(|group| !groups.contains(group));
        match (foreign, missing) {
            (Some(group), _) if *group == GROUP => Some(format!("{how}: the caller's group {group}")),
            (Some(group), _) => Some(format!("{how}: the group {group}, which nobody gave")),
            (None, Some(group)) => Some(format!("{how}: not the group {group}, which was given")),
            (None, None) => None,
        }
    };
    for given in [&[][..], &[2000, 3000]] {
        let set = if lab.wrong { &[10][..] } else { given };
        let user = json!({ "uid": 1000, "gid": 1000, "additionalGids": set });
        let build = || -> Result<Bundle<'_>> {
            Ok(with_users(lab, &json!(1000), &json!(1000))?.with("process.user", user.clone()))
        };
        if let Some(seen) = check("run", &build()?.must_run(&["ids"])?, given) {
            return Outcome::broken(seen);
        }
        let mut bundle = build()?;
        bundle.up(&["sleep"])?;
        if let Some(seen) = check("exec", &bundle.exec(&[], &["ids"])?.must()?, given) {
            return Outcome::broken(seen);
        }
    }
    Ok(Outcome::Held)
}

const MOST_TIME: Duration = Duration::from_secs(2);
const MOST_MEBIBYTES: u64 = 50;

/// A container with such files starts within two seconds and in 50 MiB, or fails in both.
fn files(lab: &Lab, make: fn(&Path) -> std::io::Result<()>) -> Result<Outcome> {
    let mut bundle = Bundle::new(lab)?;
    for name in ["etc/passwd", "etc/group"] {
        make(&bundle.rootfs().join(name)).during(|| format!("make {name}"))?;
    }
    // There is no HOME in its environment: the runtime looks the user up.
    let ended = bundle.run_measured(lab.wrong)?;
    let memory = ended.of("measure").and_then(|text| text.parse::<u64>().ok());
    let finding = match memory {
        _ if ended.hung => Some("it hangs".to_owned()),
        _ if ended.time > MOST_TIME => Some(format!("it takes {:.1} s", ended.time.as_secs_f64())),
        Some(memory) if memory >= MOST_MEBIBYTES => Some(format!("it takes {memory} MiB")),
        Some(_) => None,
        None => Some(format!("it could not be measured: {}", ended.said())),
    };
    Ok(finding.into())
}

fn fifo(path: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(0o644), 0)?)
}

fn zero(path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink("/dev/zero", path)
}

fn sparse(path: &Path) -> std::io::Result<()> {
    fs::File::create(path)?.set_len(4 << 30)
}

fn lines(path: &Path) -> std::io::Result<()> {
    let thousand = "a::\n".repeat(1000);
    let mut file = fs::File::create(path)?;
    (0..10_000).try_for_each(|_| file.write_all(thousand.as_bytes()))
}
