#compdef plug
# Completion of plug for zsh: source <(plug completion zsh) in ~/.zshrc behind compinit, or saved as _plug below $fpath.
_plug() {
    local -a candidates
    candidates=("${(@f)$(PLUG_COMPLETE=zsh "${words[1]}" -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    candidates=(${candidates:#})
    if (( $#candidates )); then
        _describe -V plug candidates
    else
        _files
    fi
}
if [[ "$funcstack[1]" == _plug ]]; then
    _plug "$@"
else
    compdef _plug plug
fi
