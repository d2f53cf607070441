//! `top`: the container's processes, read from the host's /proc. No `ps` is run, neither the image's nor the host's
//! (CVE-2022-1227).

use std::sync::Arc;

use ferry_api::container::Top;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::handle::Snapshot;
use super::state::Verb;
use crate::error::{Error, Result};
use crate::world::World;

/// Ticks of /proc/PID/stat a second: the kernel's USER_HZ is 100 on every architecture Ferry runs on.
const HZ: u64 = 100;

pub(super) async fn top(world: &Arc<World>, snapshot: &Snapshot, arguments: &str) -> Result<Top> {
    let record = &snapshot.record;
    record.run.status.permit(Verb::Top, &record.name, &record.id)?;
    let columns = columns(arguments)?;
    if !columns.contains(&Column::Pid) {
        let why = "Couldn't find PID field in ps output";
        return Err(Error::new(crate::error::Kind::Internal, why));
    }
    let cgroup = world.cgroup_of(record)?;
    let rows = tokio::task::spawn_blocking(move || {
        let pids = cgroup.pids()?;
        let system = System::read();
        Ok::<_, ferry_cgroup::Error>(
            pids.into_iter()
                .filter_map(|pid| Process::read(pid, &system))
                .map(|process| columns.iter().map(|column| column.of(&process)).collect::<Vec<_>>())
                .collect::<Vec<_>>(),
        )
    });
    let failed = |error: &(dyn std::error::Error + 'static)| Error::internal("list the container's processes", error);
    let rows = rows
        .await
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))?;
    world.events.container(record, "top", &[]);
    let titles = self::columns(arguments)?
        .iter()
        .map(|column| column.title().to_owned())
        .collect();
    Ok(Top {
        processes: Some(rows),
        titles: Some(titles),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    User,
    Uid,
    Pid,
    Ppid,
    C,
    Cpu,
    Mem,
    Vsz,
    Rss,
    Tty,
    Stat,
    Stime,
    Start,
    Time,
    Command,
    Cmd,
    Comm,
}

/// The forms of `ps` that are asked for in practice: `-ef` (the default), `aux` and its like, `-o a,b,c` in all spellings.
/// Which processes are meant is not asked: they are the container's.
fn columns(arguments: &str) -> Result<Vec<Column>> {
    use Column::{C, Cmd, Command, Cpu, Mem, Pid, Ppid, Rss, Start, Stat, Stime, Time, Tty, Uid, User, Vsz};
    let refused = || {
        Err(Error::invalid(format!(
            "top: ps option {arguments:?} is not supported: use -ef, aux, or -o with a list of columns"
        )))
    };
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let mut rest = words.as_slice();
    let mut chosen: Option<Vec<Column>> = None;
    let (mut full, mut user, mut plain) = (words.is_empty(), false, false);
    while let Some((word, behind)) = rest.split_first() {
        rest = behind;
        let unix = word.starts_with('-');
        let mut letters = word.trim_start_matches('-').chars();
        while let Some(letter) = letters.next() {
            match letter {
                'o' => {
                    let here = letters.as_str();
                    let list = match (here.is_empty(), rest.split_first()) {
                        (false, _) => here,
                        (true, Some((next, behind))) => {
                            rest = behind;
                            next
                        }
                        (true, None) => return refused(),
                    };
                    let more = list.split(',').map(named).collect::<Result<Vec<_>>>()?;
                    chosen.get_or_insert_default().extend(more);
                    break;
                }
                'f' if unix => full = true,
                'u' => user = true,
                'a' | 'x' if !unix => plain = true,
                'e' | 'A' | 'a' | 'd' | 'x' if unix => {}
                'w' => {}
                _ => return refused(),
            }
        }
    }
    Ok(match chosen {
        Some(columns) => columns,
        None if user => vec![User, Pid, Cpu, Mem, Vsz, Rss, Tty, Stat, Start, Time, Command],
        None if full => vec![Uid, Pid, Ppid, C, Stime, Tty, Time, Cmd],
        None if plain => vec![Pid, Tty, Stat, Time, Command],
        None => vec![Pid, Tty, Time, Cmd],
    })
}

fn named(name: &str) -> Result<Column> {
    Ok(match name {
        "user" | "euser" => Column::User,
        "uid" => Column::Uid,
        "pid" => Column::Pid,
        "ppid" => Column::Ppid,
        "c" => Column::C,
        "%cpu" | "pcpu" => Column::Cpu,
        "%mem" | "pmem" => Column::Mem,
        "vsz" => Column::Vsz,
        "rss" => Column::Rss,
        "tty" | "tt" => Column::Tty,
        "stat" | "s" => Column::Stat,
        "stime" => Column::Stime,
        "start" => Column::Start,
        "time" => Column::Time,
        "command" | "args" => Column::Command,
        "cmd" => Column::Cmd,
        "comm" => Column::Comm,
        other => {
            // In the words of the `ps` that Docker runs.
            return Err(Error::new(
                crate::error::Kind::Internal,
                format!("ps: error: unknown user-defined format specifier {other:?}"),
            ));
        }
    })
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Uid => "UID",
            Self::Pid => "PID",
            Self::Ppid => "PPID",
            Self::C => "C",
            Self::Cpu => "%CPU",
            Self::Mem => "%MEM",
            Self::Vsz => "VSZ",
            Self::Rss => "RSS",
            Self::Tty => "TTY",
            Self::Stat => "STAT",
            Self::Stime => "STIME",
            Self::Start => "START",
            Self::Time => "TIME",
            Self::Command | Self::Comm => "COMMAND",
            Self::Cmd => "CMD",
        }
    }

    fn of(self, process: &Process) -> String {
        match self {
            Self::User | Self::Uid => process.user.clone(),
            Self::Pid => process.pid.to_string(),
            Self::Ppid => process.ppid.to_string(),
            Self::C => process.cpu_share.to_string(),
            Self::Cpu => format!("{}.0", process.cpu_share),
            Self::Mem => format!("{}.{}", process.memory_share / 10, process.memory_share % 10),
            Self::Vsz => process.virtual_kib.to_string(),
            Self::Rss => process.resident_kib.to_string(),
            Self::Tty => process.tty.clone(),
            Self::Stat => process.state.to_string(),
            Self::Stime | Self::Start => process.started.clone(),
            Self::Time => {
                let seconds = process.cpu_seconds;
                format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
            }
            Self::Command | Self::Cmd => process.command.clone(),
            Self::Comm => process.name.clone(),
        }
    }
}

struct System {
    boot: i64,
    now: i64,
    users: String,
    memory_kib: u64,
}

impl System {
    fn read() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = stat
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|text| text.trim().parse().ok());
        Self {
            boot: boot.unwrap_or(0),
            now: Timestamp::now().as_second(),
            users: std::fs::read_to_string("/etc/passwd").unwrap_or_default(),
            memory_kib: rustix::system::sysinfo().totalram as u64 / 1024,
        }
    }

    fn user(&self, uid: u32) -> String {
        let of = |line: &&str| line.split(':').nth(2) == Some(uid.to_string().as_str());
        let name = self.users.lines().find(of).and_then(|line| line.split(':').next());
        name.map_or_else(|| uid.to_string(), str::to_owned)
    }
}

struct Process {
    pid: i32,
    ppid: i32,
    user: String,
    name: String,
    state: char,
    tty: String,
    cpu_seconds: u64,
    /// Per cent.
    cpu_share: u64,
    /// Tenths of a per cent.
    memory_share: u64,
    virtual_kib: u64,
    resident_kib: u64,
    started: String,
    command: String,
}

impl Process {
    /// `None` if it has ended meanwhile.
    fn read(pid: i32, system: &System) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let uid = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything, parentheses too.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let cpu_seconds = (number(11) + number(12)) / HZ;
        let started = system.boot + i64::try_from(number(19) / HZ).unwrap_or(0);
        let lived = u64::try_from(system.now - started).unwrap_or(0).max(1);
        let page_kib = u64::try_from(rustix::param::page_size()).unwrap_or(4096) / 1024;
        let resident_kib = number(21) * page_kib;
        let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&raw).trim_end_matches('\0').replace('\0', " ");
        Some(Self {
            pid,
            ppid: fields.get(1)?.parse().ok()?,
            user: system.user(uid),
            state: fields.first()?.chars().next()?,
            tty: match number(4) {
                0 => "?".to_owned(),
                device => format!("pts/{}", (device & 0xff) | (device >> 12 & 0xfff00)),
            },
            cpu_seconds,
            cpu_share: (cpu_seconds * 100 / lived).min(100),
            memory_share: resident_kib * 1000 / system.memory_kib.max(1),
            virtual_kib: number(20) / 1024,
            resident_kib,
            started: start_time(started, system.now),
            command: if command.is_empty() {
                format!("[{name}]")
            } else {
                command
            },
            name,
        })
    }
}

/// `HH:MM` today, `MonDD` before.
fn start_time(started: i64, now: i64) -> String {
    let format = if now - started < 86_400 { "%H:%M" } else { "%b%d" };
    Timestamp::from_second(started)
        .map(|at| at.to_zoned(TimeZone::system()).strftime(format).to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ps_are_read_in_their_spellings() {
        let titles = |text: &str| {
            let columns = columns(text).map(|columns| columns.iter().map(|column| column.title()).collect::<Vec<_>>());
            columns.map_or_else(|_| "refused".to_owned(), |titles| titles.join(" "))
        };
        for (text, expected) in [
            ("", "UID PID PPID C STIME TTY TIME CMD"),
            ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
            ("waux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            ("auxww", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            ("-aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            ("ax", "PID TTY STAT TIME COMMAND"),
            ("-e", "PID TTY TIME CMD"),
            ("-o pid,args", "PID COMMAND"),
            ("-opid,comm", "PID COMMAND"),
            ("-eo pid,user", "PID USER"),
            ("axo pid,user", "PID USER"),
            ("-eo pid -o user", "PID USER"),
            ("-o", "refused"),
            ("-l", "refused"),
            ("-o nothing", "refused"),
            ("--forest", "refused"),
        ] {
            assert_eq!(titles(text), expected, "{text}");
        }
    }
}
