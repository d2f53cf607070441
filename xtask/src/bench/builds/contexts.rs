//! What is built: directories with a Dockerfile.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::bench::engine::IMAGE;
use crate::sweep;

/// All of them, removed with this.
pub struct Contexts {
    dir: PathBuf,
    next: Cell<usize>,
}

impl Drop for Contexts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Contexts {
    /// On the disk the engines are on.
    pub fn make() -> Result<Self> {
        let dir = Path::new("/var/tmp").join(format!("{}builds-{}", sweep::MARK, std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            next: Cell::new(1),
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Another one each time.
    pub fn number(&self) -> usize {
        self.next.replace(self.next.get() + 1)
    }

    fn context(&self, name: &str, dockerfile: &str) -> Result<PathBuf> {
        let dir = self.path(name);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("Dockerfile"), dockerfile).with_context(|| format!("write the Dockerfile of {name}"))?;
        Ok(dir)
    }

    pub fn ten_instructions(&self) -> Result<PathBuf> {
        let dockerfile = format!(
            "FROM {IMAGE}\nENV A=b\nWORKDIR /app\nCOPY a.txt .\nRUN true 1\nRUN true 2\nCOPY src src\nRUN true 3\nEXPOSE 80\n\
             CMD [\"true\"]\n"
        );
        let dir = self.context("ten", &dockerfile)?;
        fs::create_dir_all(dir.join("src"))?;
        fs::write(dir.join("a.txt"), "a")?;
        for number in 0..5 {
            fs::write(dir.join(format!("src/{number}")), format!("{number}"))?;
        }
        Ok(dir)
    }

    pub fn runs(&self, count: usize) -> Result<PathBuf> {
        let mut dockerfile = format!("FROM {IMAGE}\nARG N\n");
        for number in 0..count {
            let _ = writeln!(dockerfile, "RUN true $N {number}");
        }
        self.context(&format!("runs-{count}"), &dockerfile)
    }

    pub fn stages(&self, count: usize) -> Result<PathBuf> {
        let mut dockerfile = String::new();
        for number in 0..count {
            let _ = write!(
                dockerfile,
                "FROM {IMAGE} AS s{number}\nARG N\nRUN sleep 1; echo $N > /{number}\n"
            );
        }
        dockerfile += "FROM scratch\n";
        for number in 0..count {
            let _ = writeln!(dockerfile, "COPY --from=s{number} /{number} /");
        }
        self.context("stages", &dockerfile)
    }

    /// Other files each time, in a directory of another name.
    fn files(&self, name: &str, count: usize, size: usize) -> Result<PathBuf> {
        let number = self.number();
        let dir = self.context(&format!("{name}-{number}"), "FROM scratch\nCOPY files /files\n")?;
        let mut random = Random((count + number) as u64);
        let mut content = vec![0; size];
        for number in 0..count {
            let below = dir.join(format!("files/{}", number / 100));
            if number % 100 == 0 {
                fs::create_dir_all(&below)?;
            }
            random.fill(&mut content);
            fs::write(below.join(format!("{number}")), &content)?;
        }
        Ok(dir)
    }

    pub fn many_files(&self) -> Result<PathBuf> {
        self.files("many", 20_000, 5_000)
    }

    pub fn large_files(&self) -> Result<PathBuf> {
        self.files("large", 50, 10_000_000)
    }

    pub fn similar_files(&self) -> Result<PathBuf> {
        self.files("similar", 2_000, 16_384)
    }

    pub fn change_one_of(&self, files: &Path, number: usize) -> Result<()> {
        let path = files.join("files/0/77");
        fs::write(&path, format!("changed {number} {}", self.number()))
            .with_context(|| format!("write {}", path.display()))
    }

    pub fn written_files(&self) -> Result<PathBuf> {
        let script = "mkdir /many; i=0; while [ $i -lt 10000 ]; do echo $i > /many/$i; i=$((i+1)); done; echo $N";
        self.context("written", &format!("FROM {IMAGE}\nARG N\nRUN {script}\n"))
    }
}

/// Bytes that no compression makes less (xorshift).
struct Random(u64);

impl Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            piece.copy_from_slice(&self.0.to_le_bytes()[..piece.len()]);
        }
    }
}
