//! Rules about how single instructions are written.

use super::{Rule, Warnings};
use crate::file::Added;
use crate::source::{Arguments, Node};

pub(super) fn look(node: &Node, warnings: &mut Warnings) {
    match node.name.to_ascii_uppercase().as_str() {
        "MAINTAINER" => warnings.add(Rule::MaintainerDeprecated, node.range, || {
            "Maintainer instruction is deprecated in favor of using label".to_owned()
        }),
        "FROM" => from(node, warnings),
        _ => {}
    }
}

fn from(node: &Node, warnings: &mut Warnings) {
    let Arguments::Words(words) = &node.arguments else {
        return;
    };
    if let [_, _, name] = words.as_slice()
        && *name != name.to_lowercase()
    {
        warnings.add(Rule::StageNameCasing, node.range, || {
            format!("Stage name '{name}' should be lowercase")
        });
    }
    if let [_, keyword, _, ..] = words.as_slice() {
        let same = if node.name == node.name.to_lowercase() {
            *keyword == keyword.to_lowercase()
        } else if node.name == node.name.to_uppercase() {
            *keyword == keyword.to_uppercase()
        } else {
            // That the instruction is written in two cases is another rule's.
            true
        };
        if !same {
            warnings.add(Rule::FromAsCasing, node.range, || {
                format!("'{keyword}' and '{}' keywords' casing do not match", node.name)
            });
        }
    }
}

/// The comment right before a stage or an argument describes it.
pub(super) fn look_at_description(node: &Node, added: &Added<'_>, warnings: &mut Warnings) {
    let Some(comment) = node.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    let (keyword, names) = match added {
        Added::Stage(stage) => match stage.name.as_deref() {
            Some(name) => ("FROM", vec![name]),
            None => return,
        },
        Added::Arguments(names) => ("ARG", names.clone()),
        Added::Other => return,
    };
    if names.contains(&first) {
        return;
    }
    let name = match names.as_slice() {
        [name] => name,
        _ => "<arg_key>",
    };
    warnings.add(Rule::InvalidDefinitionDescription, node.range, || {
        format!("Comment for {keyword} should follow the format: `# {name} <description>`")
    });
}
