//! Containers on terminals, through dockerd.

use ferry_testkit::{Engines, Pty, wait_until};

#[test]
fn a_shell_has_a_terminal_that_follows_the_window() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    let line = ["run", "-it", "--name", "c1", "-e", "PS1=ready> ", "busybox", "sh"];
    let mut pty = Pty::spawn(&engines.docker(line).into_command());
    pty.expect("ready> ");
    let id = engines.docker(["inspect", "-f", "{{.Id}}", "c1"]).ok();
    engines.assert_ferry_runs(&id);
    pty.send("tty; stty size; ls -l /dev/console | cut -c1; test -t 2 && echo terminal\n");
    for seen in ["/dev/pts/0", "24 80", "\nc", "\nterminal", "ready> "] {
        pty.expect(seen);
    }
    pty.resize(33, 99);
    pty.send("while [ \"$(stty size)\" != '33 99' ]; do sleep 0.05; done; echo follo''wed\n");
    pty.expect("followed");
    // The job and not the shell is interrupted.
    pty.send("sh -c \"echo be''gun; sleep 1000\"\n");
    pty.expect("begun");
    pty.send("\x03");
    pty.expect("ready> ");
    pty.send("exit 7\n");
    assert_eq!(pty.wait(), 7);
}

#[test]
fn exec_has_a_terminal_of_its_own_and_attach_comes_back_to_the_first() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    let line = ["run", "-dit", "--name", "c1", "-e", "PS1=ready> ", "busybox", "sh"];
    let id = engines.docker(line).ok();
    engines.assert_ferry_runs(&id);
    let line = [
        "exec",
        "-it",
        "-u",
        "app",
        "-w",
        "/tmp",
        "-e",
        "PS1=second> ",
        "c1",
        "sh",
    ];
    let mut second = Pty::spawn(&engines.docker(line).into_command());
    second.expect("second> ");
    second.send("tty; pwd; id -u\n");
    for seen in ["/dev/pts/1", "/tmp", "1000", "second> "] {
        second.expect(seen);
    }
    second.resize(20, 70);
    second.send("while [ \"$(stty size)\" != '20 70' ]; do sleep 0.05; done; exit 5\n");
    assert_eq!(second.wait(), 5);

    let mut first = Pty::spawn(&engines.docker(["attach", "c1"]).into_command());
    first.send("\n");
    first.expect("ready> ");
    first.send("\x10\x11");
    first.expect("read escape sequence");
    first.wait();
    let status = || engines.docker(["inspect", "-f", "{{.State.Status}}", "c1"]).ok();
    assert_eq!(status(), "running");
    let mut first = Pty::spawn(&engines.docker(["attach", "c1"]).into_command());
    first.send("exit 3\n");
    assert_eq!(first.wait(), 3);
    wait_until("it has ended", || status() == "exited");
}
