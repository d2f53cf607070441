# bash completion for PROGRAM: source <(PROGRAM completion bash)
_PROGRAM_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" out directive words word cur head
    read -ra words <<<"$line"
    # Behind a blank a new word begins.
    [[ $line == *[[:space:]] ]] && words+=("")
    cur="${words[-1]}"
    out=$("${words[0]/#\~/$HOME}" REQUEST "${words[@]:1}" 2>/dev/null) || return
    directive="${out##*:}"
    out="${out%:*}"
    COMPREPLY=()
    # bash takes `:` and `=` for the ends of words: what is before them stays as it is.
    head="$cur"
    [[ $cur == --*=* ]] && head="${cur#*=}"
    if [[ $COMP_WORDBREAKS == *:* && $head == *:* ]]; then head="${head%"${head##*:}"}"; else head=""; fi
    while IFS= read -r word; do
        word="${word%%$'\t'*}"
        [[ -n $word ]] && COMPREPLY+=("${word#"$head"}")
    done <<<"$out"
    ((directive & 2)) && compopt -o nospace 2>/dev/null
    ((directive & 4)) && compopt +o default 2>/dev/null
    if ((directive & 16)); then
        [[ $cur == --*=* ]] && cur="${cur#*=}"
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
    fi
}
complete -o default -F _PROGRAM_complete PROGRAM
