# Completion of plug for fish: plug completion fish | source, or saved as ~/.config/fish/completions/plug.fish.
function __plug_candidates
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l candidates (env PLUG_COMPLETE=fish $words[1] -- $words "$current" 2>/dev/null)
    if set -q candidates[1]
        printf '%s\n' $candidates
    else
        __fish_complete_path "$current"
    end
end
complete --command plug --no-files --keep-order --arguments '(__plug_candidates)'
