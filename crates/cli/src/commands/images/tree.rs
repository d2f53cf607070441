//! `images --tree` (docker/cli's image/tree.go, 28.5), as far as an engine without indexes has something to show.

use ferry_api::image::Summary;
use ferry_kit::units;

use crate::format::short_id;

/// Between two columns.
const SPACING: usize = 3;
/// The names get no less.
const NARROWEST: usize = 12;

/// How it is written: on a terminal in colours.
#[derive(Clone, Copy)]
pub struct Style {
    pub columns: usize,
    pub terminal: bool,
}

/// The columns behind the name: title, width, and whether it is right-aligned.
const COLUMNS: [(&str, usize, bool); 4] = [
    ("ID", 12, false),
    ("DISK USAGE", 10, true),
    ("CONTENT SIZE", 12, true),
    ("EXTRA", 5, false),
];

const NAME: &str = "\u{1b}[34m\u{1b}[1m";
const UNTAGGED: &str = "\u{1b}[39m\u{1b}[2m";
const PLAIN: &str = "\u{1b}[39m";
const HEADING: &str = "\u{1b}[39m\u{1b}[1m";
const WARNING: &str = "\u{1b}[93m";
const RESET: &str = "\u{1b}[0m";
const IN_USE: &str = "\u{1b}[38;5;0m\u{1b}[48;5;14m U \u{1b}[0m";

impl Style {
    fn color(self, color: &str, text: &str) -> String {
        match self.terminal {
            true => format!("{color}{text}{RESET}"),
            false => text.to_owned(),
        }
    }
}

pub fn tree(images: &[Summary], all: bool, style: Style) -> String {
    let width = style.columns.max(20);
    let mut images: Vec<&Summary> = images
        .iter()
        .filter(|image| all || image.repo_tags.iter().flatten().next().is_some())
        .collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    // From the right, columns go until the names have room.
    let (mut name_width, mut shown) = (width, 0);
    for (_, column, _) in COLUMNS {
        let Some(left) = name_width
            .checked_sub(column + SPACING)
            .filter(|&left| left >= NARROWEST)
        else {
            break;
        };
        (name_width, shown) = (left, shown + 1);
    }
    let lengths = images.iter().map(|image| {
        let names = image.repo_tags.iter().flatten().map(|name| name.chars().count());
        names.max().unwrap_or("<untagged>".len())
    });
    name_width = name_width.min(lengths.max().unwrap_or(0).max("IMAGE".len()));
    let columns = &COLUMNS[..shown];
    let gap = " ".repeat(SPACING);

    let mut out = style.color(
        WARNING,
        "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.",
    );
    out.push('\n');
    out.push_str(&legend(width, style));
    out.push_str("\n\n");
    // docker colours its headings wherever they go.
    out.push_str(&format!(
        "{HEADING}IMAGE{RESET}{}",
        " ".repeat(name_width - "IMAGE".len())
    ));
    for (title, column, right) in columns {
        let padding = " ".repeat(column - title.len());
        let title = format!("{HEADING}{title}{RESET}");
        out.push_str(&gap);
        out.push_str(&if *right { padding + &title } else { title + &padding });
    }
    out.push('\n');
    for image in images {
        let mut names: Vec<&str> = image.repo_tags.iter().flatten().map(String::as_str).collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.chars().count()));
        let last = names.pop();
        for name in names {
            out.push_str(&style.color(NAME, &cut(name, width)));
            out.push('\n');
        }
        let (color, name) = match last {
            Some(name) => (NAME, cut(name, name_width)),
            None => (UNTAGGED, cut("<untagged>", name_width)),
        };
        out.push_str(&style.color(color, &name));
        out.push_str(&" ".repeat(name_width - name.chars().count()));
        let values = details(image);
        for ((title, column, right), value) in columns.iter().zip(values) {
            out.push_str(&gap);
            if *title == "EXTRA" {
                out.push_str(match (image.containers > 0, style.terminal) {
                    (true, true) => IN_USE,
                    (true, false) => "U",
                    (false, _) => "",
                });
                let chip = match (image.containers > 0, style.terminal) {
                    (true, true) => 3,
                    (true, false) => 1,
                    (false, _) => 0,
                };
                out.push_str(&" ".repeat(column - chip));
                continue;
            }
            let value = cut(&value, *column);
            let padding = " ".repeat(column - value.chars().count());
            let value = style.color(PLAIN, &value);
            out.push_str(&if *right { padding + &value } else { value + &padding });
        }
        out.push('\n');
    }
    out
}

/// ID, disk usage, content size, and nothing.
#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn details(image: &Summary) -> [String; 4] {
    let size = |bytes: i64| units::human_size_with_precision(bytes as f64, 3);
    // The content is that of manifests, and there are none.
    [short_id(&image.id).to_owned(), size(image.size), size(0), String::new()]
}

/// What the marks mean, at the right edge.
fn legend(width: usize, style: Style) -> String {
    if style.terminal {
        let text =
            format!("\u{1b}[1m\u{1b}[106m\u{1b}[30mi{RESET}{RESET} \u{1b}[96mInfo → {RESET}{RESET} {IN_USE} In Use ");
        return " ".repeat(width.saturating_sub(21)) + &text;
    }
    let text = " Info ->  U In Use ";
    " ".repeat(width.saturating_sub(text.len())) + text
}

fn cut(text: &str, width: usize) -> String {
    crate::format::ellipsis(text, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, created: i64, size: i64, containers: i64, tags: &[&str]) -> Summary {
        Summary {
            id: format!("sha256:{id}"),
            created,
            size,
            containers,
            repo_tags: Some(tags.iter().map(|&tag| tag.to_owned()).collect()),
            ..Summary::default()
        }
    }

    fn images() -> Vec<Summary> {
        vec![
            image("1cba0baeeb3c00", 4, 10, 0, &[]),
            image("34d57883035100", 3, 10, 1, &["registry.example:5000/team/small:two"]),
            image(
                "8d5b21150a7400",
                2,
                6,
                2,
                &[
                    "a-very-long-name-for-an-image-that-does-not-fit-in-eighty-columns:1.2.3",
                    "small:1",
                ],
            ),
        ]
    }

    /// As docker 28.5.2 printed it.
    #[test]
    fn a_file_gets_no_colours_but_in_the_headings() {
        let style = Style {
            columns: 80,
            terminal: false,
        };
        let expected = "\
WARNING: This is an experimental feature. The output may change and shouldn't be depended on.
                                                              Info ->  U In Use 

\u{1b}[39m\u{1b}[1mIMAGE\u{1b}[0m                           \u{1b}[39m\u{1b}[1mID\u{1b}[0m             \u{1b}[39m\u{1b}[1mDISK USAGE\u{1b}[0m   \u{1b}[39m\u{1b}[1mCONTENT SIZE\u{1b}[0m   \u{1b}[39m\u{1b}[1mEXTRA\u{1b}[0m
registry.example:5000/team/s…   34d578830351          10B             0B   U    
a-very-long-name-for-an-image-that-does-not-fit-in-eighty-columns:1.2.3
small:1                         8d5b21150a74           6B             0B   U    
";
        assert_eq!(tree(&images(), false, style), expected);
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns() {
        let style = |columns| Style {
            columns,
            terminal: true,
        };
        let expected = "\
\u{1b}[93mWARNING: This is an experimental feature. The output may change and shouldn't be depended on.\u{1b}[0m
                             \u{1b}[1m\u{1b}[106m\u{1b}[30mi\u{1b}[0m\u{1b}[0m \u{1b}[96mInfo → \u{1b}[0m\u{1b}[0m \u{1b}[38;5;0m\u{1b}[48;5;14m U \u{1b}[0m In Use 

\u{1b}[39m\u{1b}[1mIMAGE\u{1b}[0m                    \u{1b}[39m\u{1b}[1mID\u{1b}[0m             \u{1b}[39m\u{1b}[1mDISK USAGE\u{1b}[0m
\u{1b}[39m\u{1b}[2m<untagged>\u{1b}[0m               \u{1b}[39m1cba0baeeb3c\u{1b}[0m          \u{1b}[39m10B\u{1b}[0m
\u{1b}[34m\u{1b}[1mregistry.example:5000…\u{1b}[0m   \u{1b}[39m34d578830351\u{1b}[0m          \u{1b}[39m10B\u{1b}[0m
\u{1b}[34m\u{1b}[1ma-very-long-name-for-an-image-that-does-not-fit-i…\u{1b}[0m
\u{1b}[34m\u{1b}[1msmall:1\u{1b}[0m                  \u{1b}[39m8d5b21150a74\u{1b}[0m           \u{1b}[39m6B\u{1b}[0m
";
        assert_eq!(tree(&images(), true, style(50)), expected);
        let wide = tree(&images(), true, style(80));
        assert!(
            wide.contains("0B\u{1b}[0m   \u{1b}[38;5;0m\u{1b}[48;5;14m U \u{1b}[0m  \n"),
            "{wide}"
        );
        for columns in 0..30 {
            tree(&images(), true, style(columns));
        }
    }
}
