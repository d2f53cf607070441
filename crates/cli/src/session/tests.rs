use ferry_api::Frame;

use super::*;

#[test]
fn detach_keys_are_held_back_until_the_next_key_tells() {
    let mut escape = Escape::default();
    assert_eq!(escape.pass(b"a\x10").unwrap(), b"a");
    assert_eq!(escape.pass(b"b").unwrap(), b"\x10b");
    assert_eq!(escape.pass(b"\x10\x10x").unwrap(), b"\x10\x10x");
    assert_eq!(escape.pass(b"\x10").unwrap(), b"");
    assert_eq!(escape.pass(b"\x11rest"), None);
}

#[test]
fn detach_keys_read_as_docker_writes_them() {
    assert_eq!(Escape::parse("ctrl-a,b,ctrl-@").unwrap().pass(b"x\x01b\0"), None);
    assert!(Escape::parse("ctrl-aa").is_none() && Escape::parse("xyz").is_none() && Escape::parse("").is_none());
}

#[tokio::test]
async fn frames_go_where_they_belong_however_they_are_cut() {
    let mut stream = Vec::new();
    Frame {
        stream: Stream::Stdout,
        payload: b"out",
    }
    .encode(&mut stream);
    Frame {
        stream: Stream::Stderr,
        payload: b"err",
    }
    .encode(&mut stream);
    let mut ui = Ui::memory();
    let mut demultiplexer = Demultiplexer::new(false);
    for piece in stream.chunks(5) {
        demultiplexer.write(&mut ui, piece).await.unwrap();
    }
    assert_eq!((ui.printed().as_str(), ui.complained().as_str()), ("out", "err"));
}
