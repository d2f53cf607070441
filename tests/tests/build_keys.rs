//! `--ssh ID=KEY`: an agent for keys in files, for as long as a build. OpenSSH's own programs ask it, and check what it signs.

use ferry_testkit::Run;

use crate::build::Place;

/// Kinds of keys, and what `ssh-keygen` is asked for.
const KEYS: [(&str, &[&str]); 8] = [
    ("ed25519", &["-t", "ed25519"]),
    ("rsa", &["-t", "rsa", "-b", "2048"]),
    ("rsa-pem", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
    ("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
    ("p256", &["-t", "ecdsa", "-b", "256"]),
    ("p256-pem", &["-t", "ecdsa", "-b", "256", "-m", "PEM"]),
    ("p384", &["-t", "ecdsa", "-b", "384"]),
    ("p384-pkcs8", &["-t", "ecdsa", "-b", "384", "-m", "PKCS8"]),
];

/// Makes a key in the context.
fn make(place: &Place, name: &str, options: &[&str], password: &str) {
    let run = Run::new("ssh-keygen").directory(place.path("."));
    run.args(["-q", "-N", password, "-C", "made", "-f", name])
        .args(options)
        .ok();
}

/// This machine's program with all that it loads, in the context's `root`.
fn bring(place: &Place, program: &str) {
    let script = "for file in $0 $(ldd $0 | grep -o '/[^ ]*'); do mkdir -p root${file%/*}; cp -L $file root$file; done";
    let run = Run::new("sh").directory(place.path("."));
    run.args(["-c", script, program]).ok();
}

#[test]
fn keys_in_files_sign_in_a_build_and_stay_outside() {
    let place = Place::new();
    for program in ["/usr/bin/ssh-add", "/usr/bin/ssh-keygen"] {
        bring(&place, program);
    }
    for (name, options) in KEYS {
        make(&place, name, options, "");
        place.write("message", "what is signed\n");
        let public = std::fs::read_to_string(place.path(&format!("{name}.pub"))).unwrap();
        place.write("public", &public);
        place.write("signers", &format!("me {public}"));
        let dockerfile = "FROM busybox AS made\nCOPY root /\nCOPY public message /\n\
            RUN --mount=type=ssh ssh-add -l && ssh-add -L | cut -d' ' -f1,2 > /listed && ! ssh-add -D && \
            ssh-keygen -q -Y sign -f /public -n file /message\n\
            RUN test ! -e /run/buildkit && ! ssh-add -l\n\
            FROM scratch\nCOPY --from=made /listed /message.sig /\n";
        place.write("Dockerfile", dockerfile);
        let run = place
            .command()
            .args(["build", "-q", "--ssh", &format!("default={name}"), "-o", "out", "."]);
        let built = run.output();
        assert_eq!(built.code, 0, "{name}: {built:?}");
        let listed = std::fs::read_to_string(place.path("out/listed")).unwrap();
        assert!(public.starts_with(listed.trim()), "{name}: {listed}");
        let check = Run::new("ssh-keygen").directory(place.path("."));
        let check = check.args([
            "-Y",
            "verify",
            "-f",
            "signers",
            "-I",
            "me",
            "-n",
            "file",
            "-s",
            "out/message.sig",
        ]);
        let checked = check.input("what is signed\n").output();
        assert_eq!(checked.code, 0, "{name}: {checked:?}");
    }
    // Several at once, and two agents.
    place.write(
        "Dockerfile",
        "FROM busybox\nCOPY root /\nRUN --mount=type=ssh ssh-add -l | wc -l\nRUN --mount=type=ssh,id=other ssh-add -l | wc -l\n",
    );
    let built = place.ferry("build --progress plain --ssh default=ed25519,rsa,p256 --ssh other=p384,rsa-pem .");
    assert_eq!(built.code, 0, "{built:?}");
    for count in [" 3\n", " 2\n"] {
        assert!(built.stderr.contains(count), "{built:?}");
    }
    place.is_clean();
}

#[test]
fn what_is_no_key_is_refused_by_name() {
    let place = Place::new();
    place.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    place.write("text", "no key\n");
    place.write("empty", "");
    place.write(
        "cut",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    );
    place.write("directory/file", "");
    make(&place, "key", &["-t", "ed25519"], "");
    make(&place, "locked", &["-t", "ed25519"], "password");
    make(&place, "locked-pem", &["-t", "rsa", "-m", "PEM"], "password");
    make(&place, "locked-pkcs8", &["-t", "rsa", "-m", "PKCS8"], "password");
    make(&place, "p521", &["-t", "ecdsa", "-b", "521"], "");
    let socket = place.engine.socket().display().to_string();
    let locked = "ssh: this private key is passphrase protected: add it to an agent with ssh-add";
    for (options, says) in [
        ("--ssh default=nothing", "stat nothing: no such file or directory"),
        ("--ssh default=text", "failed to parse text: ssh: no key found"),
        ("--ssh default=empty", "failed to parse empty: ssh: no key found"),
        ("--ssh default=key.pub", "failed to parse key.pub: ssh: no key found"),
        ("--ssh default=cut", "failed to parse cut: ssh: "),
        ("--ssh default=directory", "failed to read directory: is a directory"),
        ("--ssh default=locked", &format!("failed to parse locked: {locked}")),
        (
            "--ssh default=locked-pem",
            &format!("failed to parse locked-pem: {locked}"),
        ),
        (
            "--ssh default=locked-pkcs8",
            &format!("failed to parse locked-pkcs8: {locked}"),
        ),
        ("--ssh default=p521", "failed to parse p521: only Ed25519, RSA"),
        ("--ssh a=key --ssh a=key", "duplicate agent ID \"a\""),
        (&format!("--ssh default=key,{socket}"), "only single socket allowed"),
    ] {
        let refused = place.ferry(&format!("build {options} ."));
        assert_eq!(refused.code, 1, "{options}: {refused:?}");
        assert!(refused.stderr.contains(says), "{options}: {refused:?}");
    }
    place.ferry("build --ssh default=key .").ok();
    place.is_clean();
}
