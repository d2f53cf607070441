/// Watches what is typed for the keys that leave a container running (`ctrl-p,ctrl-q`).
///
/// What may be the beginning of them is held back until the next key tells.
#[derive(Debug, Clone)]
pub struct Escape {
    keys: Vec<u8>,
    matched: usize,
}

impl Default for Escape {
    fn default() -> Self {
        Self {
            keys: vec![16, 17],
            matched: 0,
        }
    }
}

impl Escape {
    /// Of docker's notation: `ctrl-` and a letter or one of `@[]\^_`, or a single character, separated by commas.
    pub fn parse(text: &str) -> Option<Self> {
        let keys = text
            .split(',')
            .map(|key| match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([letter @ b'a'..=b'z']) => Some(letter - b'a' + 1),
                Some(b"@") => Some(0),
                Some(b"[") => Some(27),
                Some(b"\\") => Some(28),
                Some(b"]") => Some(29),
                Some(b"^") => Some(30),
                Some(b"_") => Some(31),
                Some(_) => None,
                None => match key.as_bytes() {
                    [key] => Some(*key),
                    _ => None,
                },
            });
        Some(Self {
            keys: keys.collect::<Option<_>>()?,
            matched: 0,
        })
    }

    /// What goes on to the container; none when the keys are complete.
    pub fn pass(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(typed.len() + self.matched);
        for key in typed {
            if self.keys[self.matched] == *key {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return None;
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if self.keys[0] == *key {
                self.matched = 1;
            } else {
                out.push(*key);
            }
        }
        Some(out)
    }
}
