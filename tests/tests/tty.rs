//! `-it` on a real terminal: a pty of the test's own, and once tmux.

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, Pty, Run, wait_until};

/// `-e PS1=…` with a prompt that no command line contains.
const PROMPT: &str = "ready# ";

fn shell(engine: &Engine, options: &[&str]) -> Pty {
    engine.busybox();
    let args = ["run", "-it", "-e", "PS1=ready# "]
        .iter()
        .chain(options)
        .chain([&BUSYBOX, &"sh"]);
    let mut pty = Pty::spawn(&engine.run(args).into_command());
    pty.expect(PROMPT);
    pty
}

#[test]
fn a_shell_has_a_terminal_of_the_right_size() {
    let engine = Engine::start();
    let mut pty = shell(&engine, &["--rm", "--name", "c1"]);
    pty.send("tty; stty size; echo $TERM\n");
    pty.expect("/dev/pts/0\r\n24 80\r\nxterm\r\n");
    pty.expect(PROMPT);
    pty.resize(40, 132);
    // The size goes through the API: it takes a moment.
    pty.send("while [ \"$(stty size)\" != '40 132' ]; do sleep 0.05; done; echo resi''zed\n");
    pty.expect("resized");
    pty.expect(PROMPT);
    pty.send("exit 11\n");
    assert_eq!(pty.wait(), 11);
    wait_until("--rm", || !engine.has_container("c1"));
}

#[test]
fn control_c_interrupts_the_command_and_not_the_shell() {
    let engine = Engine::start();
    let mut pty = shell(&engine, &["--rm"]);
    pty.send("sleep 1000\n");
    pty.expect("sleep 1000\r\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    pty.send("\x03");
    pty.expect(PROMPT);
    pty.send("echo status $?\n");
    pty.expect("status 130");
    pty.send("exit 12\n");
    assert_eq!(pty.wait(), 12);
}

#[test]
fn the_detach_keys_leave_it_running_and_attach_comes_back() {
    let engine = Engine::start();
    let mut pty = shell(&engine, &["--name", "c1"]);
    pty.send("x=kept\n");
    pty.expect(PROMPT);
    pty.send("\x10\x11");
    assert_eq!(pty.wait(), 0);
    assert_eq!(engine.field("c1", "/State/Running"), "true");

    let mut pty = Pty::spawn(&engine.run(["attach", "c1"]).into_command());
    std::thread::sleep(std::time::Duration::from_millis(400));
    pty.send("\n");
    pty.expect(PROMPT);
    pty.send("echo still $x\n");
    pty.expect("still kept");
    pty.send("exit 3\n");
    assert_eq!(pty.wait(), 3);
}

#[test]
fn detach_keys_can_be_chosen() {
    let engine = Engine::start();
    let mut pty = shell(&engine, &["--name", "c1", "--detach-keys", "ctrl-x,x"]);
    pty.send("\x18x");
    assert_eq!(pty.wait(), 0);
    assert_eq!(engine.field("c1", "/State/Running"), "true");
    let mut pty = Pty::spawn(&engine.run(["attach", "--detach-keys", "ctrl-a", "c1"]).into_command());
    std::thread::sleep(std::time::Duration::from_millis(400));
    pty.send("\n");
    pty.expect(PROMPT);
    pty.send("\x01");
    pty.expect("read escape sequence");
    assert_eq!(pty.wait(), 1);
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let mut pty = Pty::spawn(
        &engine
            .run(["exec", "-it", "-e", "PS1=ready# ", "c1", "sh"])
            .into_command(),
    );
    pty.expect(PROMPT);
    pty.send("tty; stty size\n");
    pty.expect("/dev/pts/");
    pty.expect("24 80");
    pty.resize(30, 90);
    pty.send("while [ \"$(stty size)\" != '30 90' ]; do sleep 0.05; done; echo resi''zed\n");
    pty.expect("resized");
    pty.send("exit 5\n");
    assert_eq!(pty.wait(), 5);
}

#[test]
fn detaching_from_exec_leaves_the_process() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let mut pty = Pty::spawn(
        &engine
            .run(["exec", "-it", "-e", "PS1=ready# ", "c1", "sh"])
            .into_command(),
    );
    pty.expect(PROMPT);
    pty.send("\x10\x11");
    pty.expect("read escape sequence");
    assert_eq!(pty.wait(), 1);
    assert!(
        engine.cli(["exec", "c1", "ps"]).ok().contains("sh\n") || engine.cli(["exec", "c1", "ps"]).ok().contains("sh")
    );
}

#[test]
fn a_terminal_is_refused_when_there_is_none() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let message = engine.run(["run", "--rm", "-it", BUSYBOX, "true"]).input("").output();
    assert!(
        message.clone().fails(1).contains("the input device is not a TTY"),
        "{message:?}"
    );
    let message = engine.run(["exec", "-it", "c1", "true"]).input("").output();
    assert!(
        message.clone().fails(1).contains("the input device is not a TTY"),
        "{message:?}"
    );
    // Output only: a terminal inside, none outside.
    let output = engine.cli(["run", "--rm", "-t", BUSYBOX, "tty"]);
    assert_eq!((output.stdout.as_str(), output.code), ("/dev/pts/0\r\n", 0));
}

#[test]
fn full_screen_programs_work_in_tmux() {
    let engine = Engine::start();
    engine.busybox();
    let (dir, _) = engine.share("tmux");
    let socket = dir.join("socket").display().to_string();
    let command = engine
        .run(["run", "--rm", "-it", BUSYBOX, "vi", "/tmp/file"])
        .into_command();
    let mut line = String::from("env");
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            line += &format!(" {}='{}'", name.display(), value.display());
        }
    }
    line += &format!(" {}", command.get_program().display());
    for arg in command.get_args() {
        line += &format!(" '{}'", arg.display());
    }
    let tmux = |args: &[&str]| {
        Run::new("tmux")
            .args(["-S", &socket, "-f", "/dev/null"])
            .args(args)
            .output()
    };
    tmux(&[
        "new-session",
        "-d",
        "-x",
        "100",
        "-y",
        "30",
        "-s",
        "t",
        &format!("{line}; echo ended $?; sleep 1000"),
    ])
    .ok();
    let screen = || tmux(&["capture-pane", "-p", "-t", "t"]).stdout;
    wait_until("vi has drawn its screen", || {
        screen().contains("/tmp/file") && screen().lines().filter(|line| line.starts_with('~')).count() > 25
    });
    tmux(&["send-keys", "-t", "t", "ihello from vi", "Escape"]).ok();
    wait_until("what was typed is shown", || screen().contains("hello from vi"));
    tmux(&["send-keys", "-t", "t", ":q!", "Enter"]).ok();
    wait_until("it has ended", || screen().contains("ended 0"));
    tmux(&["kill-server"]).ok();
}
