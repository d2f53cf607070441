//! Help, laid out as pflag's `FlagUsagesWrapped` does it.

use super::Flag;

/// The block of all flags for a terminal of so many columns.
#[must_use]
pub fn flag_texts(flags: &[Flag], columns: usize) -> String {
    let heads: Vec<String> = flags
        .iter()
        .map(|flag| {
            let name = match flag.short {
                Some(short) => format!("  -{short}, --{}", flag.name),
                None => format!("      --{}", flag.name),
            };
            if flag.kind.is_empty() {
                name
            } else {
                format!("{name} {}", flag.kind)
            }
        })
        .collect();
    // pflag counts the separator it puts in.
    let widest = heads.iter().map(|head| head.len() + 1).max().unwrap_or(0);
    let mut out = String::new();
    for (flag, head) in flags.iter().zip(&heads) {
        let mut text = flag.text.to_owned();
        for more in &flag.more {
            text.push('\n');
            text.push_str(more);
        }
        let spacing = " ".repeat(widest - head.len());
        out.push_str(&format!(
            "{head} {spacing} {}\n",
            wrap(widest + 2, columns.saturating_sub(1), &text)
        ));
    }
    out
}

/// Breaks text at `width` columns; lines after the first are indented.
#[must_use]
pub fn wrap(mut indent: usize, width: usize, text: &str) -> String {
    /// Words that go over the edge by this much end the text on the same line.
    const SLOP: usize = 5;
    let newline = |indent: usize| format!("\n{}", " ".repeat(indent));
    let mut room = width.saturating_sub(indent);
    let mut out = String::new();
    if room < 24 {
        indent = 16;
        room = width.saturating_sub(indent);
        out.push_str(&newline(indent));
    }
    if room < 24 {
        return text.replace('\n', &out);
    }
    let room = room - SLOP;
    let (mut line, mut rest) = cut(room, SLOP, text);
    out.push_str(&line.replace('\n', &newline(indent)));
    while !rest.is_empty() {
        (line, rest) = cut(room, SLOP, rest);
        out.push_str(&newline(indent));
        out.push_str(&line.replace('\n', &newline(indent)));
    }
    out
}

fn cut(room: usize, slop: usize, text: &str) -> (&str, &str) {
    if room + slop > text.len() {
        return (text, "");
    }
    let head = &text[..text.floor_char_boundary(room)];
    let Some(blank) = head.rfind([' ', '\t', '\n']).filter(|blank| *blank > 0) else {
        return (text, "");
    };
    let end = match head.rfind('\n') {
        Some(newline) if newline > 0 && newline < blank => newline,
        _ => blank,
    };
    (&text[..end], &text[end + 1..])
}
