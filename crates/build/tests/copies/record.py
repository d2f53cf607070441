#!/usr/bin/env python3
"""Records what BuildKit makes of the cases beside this file: see README.md.

    record.py PEER [FILE...]    (PEER: `peers up PEER dockerd`)
"""
import hashlib, os, re, shutil, subprocess, sys, tarfile, time

PEERS = os.environ.get("FERRY_PEERS", "/work/shared/peers/peers")
SHARE = os.path.expanduser("~/.cache/ferry-peers/host/copies")
HERE = os.path.dirname(os.path.abspath(__file__))
ORDER = ["context", "base", "ignore", "dockerfile", "result"]


def parse(text):
    cases = []
    for block in re.split(r"(?m)^=== ", text)[1:]:
        name, rest = block.split("\n", 1)
        parts = dict(re.findall(r"(?ms)^--- (\w+)\n(.*?)(?=^--- |\Z)", rest))
        cases.append((name, {key: value.strip("\n") + "\n" for key, value in parts.items()}))
    return cases


def listing(path, since):
    lines, seen, names = {}, {}, {}
    kinds = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "fifo",
             tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.LNKTYPE: "file"}
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        by_name = {m.name.strip("/"): m for m in members}
        for member in members:
            name = member.name.strip("/")
            real = by_name[member.linkname.strip("/")] if member.type == tarfile.LNKTYPE else member
            detail = ""
            if real.isreg():
                detail = hashlib.sha256(archive.extractfile(real).read()).hexdigest()[:16]
            elif real.issym():
                detail = real.linkname
            elif real.ischr() or real.isblk():
                detail = f"{real.devmajor}:{real.devminor}"
            headers = {k[13:]: v for k, v in real.pax_headers.items() if k.startswith("SCHILY.xattr.")}
            detail += "".join(f" {k}={v.encode('utf-8', 'surrogateescape').hex()}" for k, v in sorted(headers.items()))
            mtime = "now" if real.mtime >= since else f"{float(real.pax_headers.get('mtime', real.mtime)):.0f}"
            shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            shown = shown.replace("\n", "\\n").replace("\x01", "\\x01")
            kind = kinds[real.type]
            links = "" if member.type != tarfile.LNKTYPE else f" = /{member.linkname.strip('/')}"
            lines[shown] = f"{kind} {real.mode & 0o7777:04o} {real.uid}:{real.gid} {mtime} /{shown} {detail}{links}".rstrip()
    return "".join(lines[name] + "\n" for name in sorted(lines))


def record(peer, path):
    cases = parse(open(path).read())
    since = time.time() - 1000
    for number, (name, parts) in enumerate(cases):
        where = f"{SHARE}/{number}"
        shutil.rmtree(where, ignore_errors=True)
        for part in ("context", "base"):
            os.makedirs(f"{where}/{part}")
            subprocess.run(["sh", "-euc", "umask 022\n" + parts.get(part, "")], cwd=f"{where}/{part}", check=True)
        base = "FROM base\n" if "base" in parts else "FROM scratch\n"
        open(f"{where}/Dockerfile", "w").write(base + parts["dockerfile"])
        if "ignore" in parts:
            open(f"{where}/Dockerfile.dockerignore", "w").write(parts["ignore"])
        script = f"""cd /host/copies/{number}
tar c --xattrs --xattrs-include='*' -C base . | docker import - base >/dev/null
docker build --no-cache -f Dockerfile -o type=tar,dest=out.tar context 2>err || true
"""
        open(f"{where}/run.sh", "w").write(script)
    open(f"{SHARE}/run.sh", "w").write("".join(f"(sh /host/copies/{n}/run.sh)\n" for n in range(len(cases))))
    subprocess.run([PEERS, "in", peer, "sh", "/host/copies/run.sh"], check=True)
    with open(path, "w") as out:
        for number, (name, parts) in enumerate(cases):
            where = f"{SHARE}/{number}"
            tar = f"{where}/out.tar"
            if os.path.exists(tar) and os.path.getsize(tar):
                parts["result"] = listing(tar, since)
            else:
                errors = [l for l in open(f"{where}/err") if l.startswith("ERROR: ")]
                text = errors[-1][7:].strip()
                text = re.sub(r"/var/lib/docker\S*?/merged|/tmp/buildkit-mount\d+|/var/lib/docker/tmp/buildkit-mount\d+", "ROOT", text)
                text = re.sub(r"ref [a-z0-9:-]+: ", "ref R: ", text)
                parts["result"] = "error: " + text + "\n"
            out.write(f"=== {name}\n")
            for part in ORDER:
                if part in parts:
                    out.write(f"--- {part}\n{parts[part]}")
            out.write("\n")
    shutil.rmtree(SHARE)


for file in sys.argv[2:] or sorted(f"{HERE}/{f}" for f in os.listdir(HERE) if f.endswith(".txt")):
    record(sys.argv[1], file)
