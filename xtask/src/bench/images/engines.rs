//! The engines: how each is started, and what its commands are called.

use anyhow::{Result, bail};

use super::process::Daemon;
use super::stage::{HERE, RUN, STORE, Stage};

/// The registries: the one that has the images, and the one that gets them.
pub const SOURCE: u16 = 5000;
pub const TARGET: u16 = 5001;
/// Where `save` writes, on the fresh file system.
pub const SAVED: &str = "saved.tar";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    Ferry,
    Ctr,
    Podman,
    Docker,
}

impl Engine {
    /// Ferry first: everything is compared with it.
    pub const ALL: [Self; 4] = [Self::Ferry, Self::Ctr, Self::Podman, Self::Docker];

    /// Who is next to whom in time: Ferry beside the two it is judged against, and every other round backwards.
    const IN_TIME: [Self; 4] = [Self::Ctr, Self::Ferry, Self::Docker, Self::Podman];

    pub fn turns(chosen: &[Self], round: usize) -> Vec<Self> {
        let mut turns = Self::IN_TIME.to_vec();
        turns.retain(|engine| chosen.contains(engine));
        if round % 2 == 1 {
            turns.reverse();
        }
        turns
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ferry => "Ferry",
            Self::Ctr => "ctr",
            Self::Podman => "podman",
            Self::Docker => "Docker Engine",
        }
    }

    /// Its name as an argument.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ferry => "ferry",
            Self::Ctr => "ctr",
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// Its command line, up to the command.
    fn client(self) -> String {
        match self {
            Self::Ferry => format!("{HERE}/ferry -H unix://{RUN}/ferry/ferry.sock"),
            Self::Ctr => format!("ctr -a {RUN}/containerd.sock"),
            Self::Podman => format!("podman --root {STORE}/podman --runroot {RUN}/podman --storage-driver overlay"),
            Self::Docker => format!("docker -H unix://{RUN}/docker.sock"),
        }
    }

    /// Starts its daemon with an empty store. `None`: it has none.
    pub fn start(self, stage: &Stage) -> Result<Option<Daemon>> {
        stage.shell(&format!(
            "rm -rf {RUN}/ferry {RUN}/docker* {RUN}/containerd* {RUN}/podman"
        ))?;
        let daemon = match self {
            Self::Podman => return Ok(None),
            Self::Ferry => format!(
                "{HERE}/ferry daemon --data-root {STORE}/ferry --exec-root {RUN}/ferry --pidfile {RUN}/ferry.pid --bridge none"
            ),
            Self::Ctr => {
                stage.shell(&format!(
                    "printf 'version = 3\\nroot = \"{STORE}/containerd\"\\nstate = \"{RUN}/containerd\"\\n\
                     [grpc]\\naddress = \"{RUN}/containerd.sock\"\\n' >{RUN}/containerd.toml"
                ))?;
                format!("containerd -c {RUN}/containerd.toml")
            }
            Self::Docker => format!(
                "dockerd --data-root {STORE}/docker --exec-root {RUN}/docker --host unix://{RUN}/docker.sock \
                 --pidfile {RUN}/docker.pid --storage-driver overlay2 --bridge none --iptables=false --ip6tables=false"
            ),
        };
        let ready = format!("{} version", self.client());
        stage.start(self.word(), &daemon, &ready).map(Some)
    }

    fn plain_http(self) -> &'static str {
        match self {
            Self::Ctr => "--plain-http",
            Self::Podman => "--tls-verify=false",
            Self::Ferry | Self::Docker => "",
        }
    }

    pub fn pull(self, image: &str) -> String {
        let (client, plain) = (self.client(), self.plain_http());
        match self {
            Self::Ctr => format!("{client} image pull {plain} --snapshotter overlayfs {image}"),
            _ => format!("{client} pull {plain} {image}"),
        }
    }

    /// What to run before the push, and the push.
    pub fn push(self, image: &str, to: &str) -> (String, String) {
        let (client, plain) = (self.client(), self.plain_http());
        match self {
            Self::Ctr => (
                format!("{client} image tag {image} {to}"),
                format!("{client} image push {plain} {to}"),
            ),
            _ => (
                format!("{client} tag {image} {to}"),
                format!("{client} push {plain} {to}"),
            ),
        }
    }

    pub fn save(self, image: &str) -> String {
        let (client, file) = (self.client(), format!("{STORE}/{SAVED}"));
        match self {
            Self::Ctr => format!("{client} image export {file} {image}"),
            _ => format!("{client} save -o {file} {image}"),
        }
    }

    pub fn load(self, archive: &str) -> String {
        let client = self.client();
        match self {
            Self::Ctr => format!("{client} image import --snapshotter overlayfs {archive}"),
            _ => format!("{client} load -i {archive}"),
        }
    }

    pub fn remove(self, image: &str) -> String {
        let client = self.client();
        match self {
            // Without it the files go at some later time.
            Self::Ctr => format!("{client} image rm --sync {image}"),
            _ => format!("{client} rmi {image}"),
        }
    }

    /// Succeeds when the image is there.
    pub fn has(self, image: &str) -> String {
        let client = self.client();
        match self {
            Self::Ctr => format!("{client} image ls -q | grep -qxF {image}"),
            _ => format!("{client} image inspect {image}"),
        }
    }
}

/// The programs measured beside Ferry and the registry, with their versions.
pub fn versions(stage: &Stage, engines: &[Engine]) -> Result<String> {
    let mut found = Vec::new();
    let asked = engines.iter().filter_map(|engine| match engine {
        Engine::Ferry => None,
        Engine::Ctr => Some(("containerd", "containerd")),
        Engine::Podman => Some(("podman", "podman")),
        Engine::Docker => Some(("Docker Engine", "dockerd")),
    });
    for (name, program) in asked.chain([("docker-registry", "docker-registry")]) {
        let text = stage.shell(&format!("{program} --version"))?;
        let version = text.split_whitespace().find_map(number);
        match version {
            Some(version) => found.push(format!("{name} {version}")),
            None => bail!("`{program} --version` says {text:?}"),
        }
    }
    Ok(found.join(", "))
}

/// A word that is a version, without what Debian adds.
fn number(word: &str) -> Option<&str> {
    let word = word.strip_prefix('v').unwrap_or(word);
    let end = word
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(word.len());
    let version = word.get(..end)?;
    (version.contains('.') && version.starts_with(|c: char| c.is_ascii_digit())).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::Engine;

    #[test]
    fn rounds_go_to_and_fro() {
        let chosen = [Engine::Ferry, Engine::Ctr, Engine::Docker];
        assert_eq!(Engine::turns(&chosen, 0), [Engine::Ctr, Engine::Ferry, Engine::Docker]);
        assert_eq!(Engine::turns(&chosen, 1), [Engine::Docker, Engine::Ferry, Engine::Ctr]);
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let first = |text: &str| text.split_whitespace().find_map(super::number).map(str::to_owned);
        assert_eq!(first("Docker version 28.5.2+dfsg1, build x").as_deref(), Some("28.5.2"));
        assert_eq!(
            first("containerd github.com/containerd/containerd/v2 2.1.9~ds1 ").as_deref(),
            Some("2.1.9")
        );
        assert_eq!(first("podman version 5.8.6").as_deref(), Some("5.8.6"));
        assert_eq!(first("nothing"), None);
    }
}
