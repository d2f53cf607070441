//! `man`: a page for every command, from what its help is made of.

use std::fs;
use std::path::Path;

use crate::{
    commands::{Call, GROUPS, ROOT, SPECS},
    failure::{Failure, Result, io_text},
    flags::{Arity, Flag, Spec},
};

pub const SPEC: Spec = Spec {
    name: "man",
    synopsis: "DIRECTORY",
    about: "Write the manual's pages into a directory: one a command, for man(1)",
    arity: Arity::Exactly(1),
    ..Spec::EMPTY
};

pub fn run(call: &mut Call<'_>) -> Result<u8> {
    let name = &call.matches.arguments[0];
    let directory = call.env.directory.join(name);
    let write = |file: &str, text: &str| {
        fs::write(directory.join(file), text)
            .map_err(|error| Failure::new(format!("write {file} into {name}: {}", io_text(&error))))
    };
    fs::create_dir_all(&directory).map_err(|error| Failure::new(format!("make {name}: {}", io_text(&error))))?;
    let version = &call.env.build.version;
    for (file, text) in pages(version) {
        write(&file, &text)?;
    }
    call.ui.line(&format!("man -M {} ferry-run", parent(Path::new(name))));
    Ok(0)
}

/// What `man -M` wants when the directory is called man1.
fn parent(directory: &Path) -> String {
    match (directory.file_name(), directory.parent()) {
        (Some(name), Some(parent)) if name == "man1" => parent.display().to_string(),
        _ => format!("{}/..", directory.display()),
    }
}

/// All pages: file name and text.
fn pages(version: &str) -> Vec<(String, String)> {
    let mut pages = vec![("ferry.1".to_owned(), root(version))];
    for spec in SPECS {
        let own = file(spec.name);
        for alias in spec.aliases.split(", ").filter(|alias| !alias.is_empty()) {
            let alias = file(alias);
            if alias != own {
                pages.push((alias, format!(".so man1/{own}\n")));
            }
        }
        pages.push((own, page(spec, version)));
    }
    pages
}

fn file(path: &str) -> String {
    format!("{}.1", page_name(path))
}

fn page_name(path: &str) -> String {
    format!("ferry-{}", path.replace(' ', "-"))
}

/// Text as it is: no dash becomes a hyphen, and no line a request.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}\n"),
            false => format!("{line}\n"),
        })
        .collect()
}

fn title(name: &str, version: &str, about: &str) -> String {
    format!(
        ".TH {} 1 \"\" \"Ferry {version}\" \"Ferry\"\n.SH NAME\n{} \\- {}",
        name.to_uppercase(),
        plain(name).trim_end(),
        plain(about)
    )
}

fn options(heading: &str, flags: &[Flag]) -> String {
    if flags.is_empty() {
        return String::new();
    }
    let mut out = format!(".SH {heading}\n");
    for flag in flags {
        let short = flag
            .short
            .map_or_else(String::new, |short| format!("\\fB\\-{short}\\fR, "));
        let name = flag.name.replace('-', "\\-");
        let kind = match flag.kind {
            "" => String::new(),
            kind => format!(" \\fI{}\\fR", kind.replace('-', "\\-")),
        };
        out.push_str(&format!(".TP\n{short}\\fB\\-\\-{name}\\fR{kind}\n{}", plain(flag.text)));
        for line in &flag.more {
            out.push_str(&format!(".br\n{}", plain(line)));
        }
    }
    out
}

fn page(spec: &Spec, version: &str) -> String {
    let mut out = title(&page_name(spec.name), version, spec.summary());
    out.push_str(".SH SYNOPSIS\n");
    for (at, way) in spec.synopsis.split('\n').enumerate() {
        let way = plain(way);
        out.push_str(if at > 0 { ".br\n" } else { "" });
        out.push_str(&format!(
            "\\fBferry {}\\fR {}\n",
            plain(spec.name).trim_end(),
            way.trim_end()
        ));
    }
    out.push_str(&format!(".SH DESCRIPTION\n.nf\n{}.fi\n", plain(spec.about)));
    let [flags, own] = spec.groups();
    out.push_str(&options("OPTIONS", &flags));
    out.push_str(&options("OPTIONS OF FERRY'S OWN", &own));
    out + ".SH SEE ALSO\n\\fBferry\\fR(1)\n"
}

fn root(version: &str) -> String {
    let mut out = title("ferry", version, ROOT.about);
    out.push_str(&format!(".SH SYNOPSIS\n\\fBferry\\fR {}", plain(ROOT.synopsis)));
    out.push_str(&options("OPTIONS", &ROOT.definitions()));
    out.push_str(".SH COMMANDS\n");
    let mut specs = SPECS;
    specs.sort_by_key(|spec| spec.name);
    for spec in specs {
        let name = plain(&page_name(spec.name));
        out.push_str(&format!(
            ".TP\n\\fB{}\\fR(1)\n{}",
            name.trim_end(),
            plain(spec.summary())
        ));
    }
    out.push_str(".SH GROUPS\n");
    for (name, about) in GROUPS {
        out.push_str(&format!(".TP\n\\fBferry {name}\\fR\n{}", plain(about)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_every_other_name_of_it_has_a_page() {
        let pages = pages("1.0");
        let text = |file: &str| {
            pages
                .iter()
                .find(|(name, _)| name == file)
                .map(|(_, text)| text.as_str())
        };
        assert_eq!(text("ferry-container-ls.1"), Some(".so man1/ferry-ps.1\n"));
        let run = text("ferry-run.1").unwrap();
        assert!(run.contains(".TP\n\\fB\\-e\\fR, \\fB\\-\\-env\\fR \\fIlist\\fR\nSet environment variables\n"));
        for (name, text) in &pages {
            let other = |line: &str| {
                line.starts_with('.') && ![".TH", ".SH", ".TP", ".br", ".nf", ".fi", ".so"].contains(&&line[..3])
            };
            assert!(!text.lines().any(other), "{name}: {text}");
        }
    }
}
