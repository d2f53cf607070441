//! Which field of a JSON text an error's line and column lie in: serde_json knows the place and not the name.

/// `process.user.uid`, `mounts[3].options[0]`; `None` at the top level.
pub(super) fn field(text: &[u8], line: usize, column: usize) -> Option<String> {
    let start = text
        .split_inclusive(|&byte| byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    let end = (start + column).min(text.len());
    let mut path: Vec<Step> = Vec::new();
    let mut position = 0;
    while position < end {
        match text[position] {
            b'{' => path.push(Step::Key(String::new())),
            b'[' => path.push(Step::Index(0)),
            // The error is reported at the end of the value, which may be a whole object.
            b'}' | b']' if position + 1 < end => drop(path.pop()),
            b',' => {
                if let Some(Step::Index(index)) = path.last_mut() {
                    *index += 1;
                }
            }
            b'"' => {
                let length = string(&text[position..]);
                let after = position + length;
                let is_key = text[after.min(text.len())..]
                    .iter()
                    .find(|byte| !byte.is_ascii_whitespace())
                    .is_some_and(|&byte| byte == b':');
                if is_key && let Some(Step::Key(key)) = path.last_mut() {
                    *key = String::from_utf8_lossy(&text[position + 1..after - 1]).into_owned();
                }
                position = after;
                continue;
            }
            _ => {}
        }
        position += 1;
    }
    let mut name = String::new();
    for step in path {
        match step {
            Step::Key(key) if key.is_empty() => {}
            Step::Key(key) if name.is_empty() => name = key,
            Step::Key(key) => {
                name.push('.');
                name.push_str(&key);
            }
            Step::Index(index) => name.push_str(&format!("[{index}]")),
        }
    }
    (!name.is_empty()).then_some(name)
}

enum Step {
    Key(String),
    Index(usize),
}

/// The length of the string literal `text` begins with.
fn string(text: &[u8]) -> usize {
    let mut position = 1;
    while position < text.len() {
        match text[position] {
            b'\\' => position += 2,
            b'"' => return position + 1,
            _ => position += 1,
        }
    }
    text.len()
}
