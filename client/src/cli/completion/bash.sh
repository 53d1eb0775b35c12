# Completion of plug for bash: eval "$(plug completion bash)" in ~/.bashrc.
# The whole line is handed over, since bash takes words apart at colons and equals signs.
_plug() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(PLUG_COMPLETE=bash "$1" -- "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}
# Where nothing is offered, bash completes names of files.
complete -o bashdefault -o default -F _plug plug
