#!/usr/bin/env python3
"""Writes src/table.rs from the kernel's headers.

    apt-get download linux-libc-dev-armhf-cross linux-libc-dev-arm64-cross     (unpack both below CROSS)
    generate-table.py CROSS > src/table.rs

x86 comes from /usr/include (linux-libc-dev). Debian 12's headers end with Linux 6.1; what came later has the same number
on every architecture and is listed here, from scripts/syscall.tbl and arch/x86/entry/syscalls of Linux 6.18.
"""
import re, subprocess, sys

CROSS = sys.argv[1]
NEWER = {
    "set_mempolicy_home_node": 450, "cachestat": 451, "fchmodat2": 452, "map_shadow_stack": 453, "futex_wake": 454,
    "futex_wait": 455, "futex_requeue": 456, "statmount": 457, "listmount": 458, "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462, "setxattrat": 463, "getxattrat": 464,
    "listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467, "file_getattr": 468, "file_setattr": 469,
}
X86_64_ONLY = {"uretprobe": 335, "uprobe": 336}
ARM_PRIVATE = {"breakpoint": 1, "cacheflush": 2, "usr26": 3, "usr32": 4, "set_tls": 5, "get_tls": 6}
NO_CALL = {"syscalls", "SYSCALL_BASE", "OABI_SYSCALL_BASE", "SYSCALL_MASK", "sync_file_range2_"}

def defines(header, *flags):
    out = subprocess.run(["gcc", "-E", "-dM", "-x", "c", *flags, "-include", header, "/dev/null"],
                         check=True, capture_output=True, text=True).stdout
    macros = dict(re.findall(r"^#define (__\w+) (.*)$", out, re.M))
    def value(text):
        for _ in range(9):
            text = re.sub(r"\b__[A-Za-z]\w*", lambda m: macros.get(m[0], m[0]), text)
        try:
            return eval(re.sub(r"UL?\b", "", text), {"__builtins__": {}})
        except Exception:
            return None
    calls = {}
    for macro, text in macros.items():
        name = macro.removeprefix("__NR_")
        if macro.startswith("__NR_") and name not in NO_CALL and not name.startswith("arch_specific"):
            number = value(text)
            if isinstance(number, int):
                calls[name] = number
    return calls

asm = "/usr/include/x86_64-linux-gnu/asm/"
x86_64 = defines(asm + "unistd_64.h")
x86 = defines(asm + "unistd_32.h")
x32 = {n: v & ~0x40000000 for n, v in defines(asm + "unistd_x32.h", "-D__X32_SYSCALL_BIT=0x40000000").items()}
aarch64 = defines(f"{CROSS}/usr/aarch64-linux-gnu/include/asm/unistd.h", "-nostdinc",
                  f"-I{CROSS}/usr/aarch64-linux-gnu/include", "-U__x86_64__")
arm = defines(f"{CROSS}/usr/arm-linux-gnueabihf/include/asm/unistd.h", "-nostdinc",
              f"-I{CROSS}/usr/arm-linux-gnueabihf/include", "-D__ARM_EABI__")
for table in (x86_64, x86, x32, aarch64, arm):
    table.update(NEWER)
x86_64.update(X86_64_ONLY)
x32["uretprobe"] = 335  # not the kernel's, but libseccomp's, as is map_shadow_stack
arm.update({name: 0x0F0000 + n for name, n in ARM_PRIVATE.items()})

tables = (x86_64, x86, x32, aarch64, arm)
names = sorted(set().union(*tables))
print(f"""//! Names and numbers of the system calls to Linux 6.18. Written by `generate-table.py` from the kernel's headers.

/// Not a system call of that architecture.
pub(crate) const NO: u32 = u32::MAX;

/// Sorted by name; the columns are x86_64, x86, x32 (without bit 30), aarch64 and arm (EABI).
#[rustfmt::skip]
pub(crate) static CALLS: [(&str, [u32; 5]); {len(names)}] = [""")
for name in names:
    numbers = ", ".join(str(t[name]) if name in t else "NO" for t in tables)
    print(f'    ("{name}", [{numbers}]),')
print("];")
