#compdef PROGRAM
# zsh completion for PROGRAM: source <(PROGRAM completion zsh), or a file _PROGRAM on $fpath
_PROGRAM() {
    local -a lines proposals
    local out directive line text cur="${words[CURRENT]}"
    out=$("${words[1]/#\~/$HOME}" REQUEST "${(@Q)words[2,CURRENT-1]}" "${(Q)cur}" 2>/dev/null) || return 1
    directive="${out##*:}"
    lines=("${(@f)${out%:*}}")
    # The flag stays as it is.
    [[ $cur == --*=* ]] && compset -P '*='
    for line in $lines; do
        [[ -z $line ]] && continue
        text="${${line%%$'\t'*}//:/\\:}"
        [[ $line == *$'\t'* ]] && text+=":${line#*$'\t'}"
        proposals+=("$text")
    done
    if (( directive & 16 )); then
        _path_files -/
    elif (( ${#proposals} )); then
        if (( directive & 2 )); then
            _describe -V 'PROGRAM' proposals -S ''
        else
            _describe 'PROGRAM' proposals
        fi
    elif (( ! (directive & 4) )); then
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _PROGRAM "$@"; else compdef _PROGRAM PROGRAM; fi
