# fish completion for PROGRAM: PROGRAM completion fish | source
function __PROGRAM_complete
    set -l words (commandline -opc)
    set -l out ($words[1] REQUEST $words[2..-1] (commandline -ct) 2>/dev/null)
    set -l directive (string replace -r '^:' '' -- $out[-1])
    set -l flag (string match -r '^--[^=]*=' -- (commandline -ct))
    set -e out[-1]
    if test (count $out) -gt 0
        printf "$flag%s\n" $out
    else if test "$directive" = 16
        __fish_complete_directories (commandline -ct)
    else if test "$directive" = 0
        __fish_complete_path (commandline -ct)
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
