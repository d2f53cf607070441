//! The binary is static, not position-independent (ADR 0002), and small.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Findings;
use crate::workspace::{Workspace, mebibytes};

const MOST_MEBIBYTES: f64 = 25.0;
/// `e_type` and `p_type` of elf(5).
const ET_EXEC: u16 = 2;
const PT_INTERP: u32 = 3;

/// Checks what is built; what is not built is not checked.
pub fn check_built(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    for profile in ["release", "dist"] {
        let path = workspace.binary(profile);
        if path.is_file() {
            check_shape(&path, findings)?;
        }
    }
    let shipped = workspace.binary("dist");
    if shipped.is_file() && mebibytes(&shipped)? > MOST_MEBIBYTES {
        findings.error(format!("{} has more than {MOST_MEBIBYTES} MiB", shipped.display()));
    }
    Ok(())
}

fn check_shape(path: &Path, findings: &mut Findings) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    match shape(&bytes) {
        None => findings.error(format!("{}: not a 64-bit little-endian ELF file", path.display())),
        Some((kind, interpreter)) => {
            if kind != ET_EXEC {
                findings.error(format!(
                    "{}: position-independent (ELF type {kind}, not EXEC)",
                    path.display()
                ));
            }
            if interpreter {
                findings.error(format!(
                    "{}: asks for an interpreter, so it is not static",
                    path.display()
                ));
            }
        }
    }
    Ok(())
}

/// ELF type, and whether a program header asks for an interpreter.
fn shape(elf: &[u8]) -> Option<(u16, bool)> {
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let mut interpreter = false;
    for index in 0..count {
        interpreter |= word(table.checked_add(index * size)?)? == PT_INTERP;
    }
    Some((half(16)?, interpreter))
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_very_test_is_static_and_not_position_independent() {
        let path = std::env::current_exe().unwrap();
        assert_eq!(
            super::shape(&std::fs::read(path).unwrap()),
            Some((super::ET_EXEC, false))
        );
    }

    #[test]
    fn what_is_no_elf_file_is_none() {
        assert_eq!(super::shape(b""), None);
        assert_eq!(super::shape(&[0x7f; 64]), None);
    }
}
