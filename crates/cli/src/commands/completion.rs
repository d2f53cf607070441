//! `completion`: the script of a shell.

use crate::{
    commands::Call,
    completion,
    failure::{Failure, Result},
    flags::{Arity, Spec},
};

pub const ABOUT: &str = "Generate the autocompletion script for a shell";

const fn spec(name: &'static str, about: &'static str) -> Spec {
    Spec {
        name,
        about,
        arity: Arity::None,
        flags: "--no-descriptions | disable completion descriptions",
        ..Spec::EMPTY
    }
}

pub const BASH: Spec = spec(
    "completion bash",
    "Generate the autocompletion script for bash

For this shell:
	source <(ferry completion bash)
For every one to come:
	ferry completion bash > /etc/bash_completion.d/ferry",
);

pub const FISH: Spec = spec(
    "completion fish",
    "Generate the autocompletion script for fish

For this shell:
	ferry completion fish | source
For every one to come:
	ferry completion fish > ~/.config/fish/completions/ferry.fish",
);

pub const POWERSHELL: Spec = spec(
    "completion powershell",
    "Generate the autocompletion script for powershell

For this shell:
	ferry completion powershell | Out-String | Invoke-Expression",
);

pub const ZSH: Spec = spec(
    "completion zsh",
    "Generate the autocompletion script for zsh

For this shell, after compinit:
	source <(ferry completion zsh)
For every one to come:
	ferry completion zsh > \"${fpath[1]}/_ferry\"",
);

pub fn run(call: &mut Call<'_>, name: &str) -> Result<u8> {
    let shell = name.trim_start_matches("completion ");
    let described = !call.matches.switch("no-descriptions");
    let script = completion::script(shell, &call.env.program, described);
    call.ui
        .print(&script.ok_or_else(|| Failure::new(format!("no completion for {shell}")))?);
    Ok(0)
}
