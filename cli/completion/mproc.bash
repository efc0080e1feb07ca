# bash completion for mproc

# Names of the tasks that a library exports. Nothing of it is run: a key must not do that.
_mproc_tasks() {
  nm -D --defined-only -- "$1" 2>/dev/null | sed -n 's/.* mproc_task_\([A-Za-z0-9_]\{1,\}\)$/\1/p'
}

_mproc_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

_mproc_words() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

# _mproc_map_value PREVIOUS CURRENT: true when the word before takes this one as its value.
_mproc_map_value() {
  case $1 in
    -a | --arg-file | --joblog) _mproc_files "$2" ;;
    --start-method) _mproc_words 'fork spawn forkserver' "$2" ;;
    --halt) _mproc_words 'never soon,fail=1 now,fail=1 soon,fail=10% now,success=1' "$2" ;;
    -j | --jobs) _mproc_words "$(nproc 2>/dev/null) 50% 100%" "$2" ;;
    --timeout | --memory | --retries) COMPREPLY=() ;;
    *) return 1 ;;
  esac
}

_mproc_map() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} i word
  # LIBRARY:FUNCTION is three words where a colon ends one
  if [[ $current == : && -f $previous ]]; then
    _mproc_words "$(_mproc_tasks "$previous")" ''
    return
  elif [[ $previous == : && COMP_CWORD -gt 2 && -f ${COMP_WORDS[COMP_CWORD - 2]} ]]; then
    _mproc_words "$(_mproc_tasks "${COMP_WORDS[COMP_CWORD - 2]}")" "$current"
    return
  fi
  for ((i = 2; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $word in
      --)
        if ((COMP_CWORD == i + 1)); then
          mapfile -t COMPREPLY < <(compgen -c -- "$current")
        else
          _mproc_files "$current"
        fi
        return
        ;;
      -a | -j | --arg-file | --joblog | --start-method | --halt | --jobs | --timeout | --memory | \
        --retries)
        ((i++))
        ;;
      -*) ;;
      *)
        _mproc_files "$current"
        return
        ;;
    esac
  done
  _mproc_map_value "$previous" "$current" && return
  if [[ $current == -* ]]; then
    _mproc_words '--arg-file --check --dry-run --halt --help --jobs --joblog --json --memory --null
      --ordered --progress --raw --resume --retries --shell --start-method --stats --timeout
      --unordered --' "$current"
  else
    _mproc_files "$current"
  fi
}

_mproc() {
  local current=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    _mproc_words 'help map methods --help --version' "$current"
    return
  fi
  case ${COMP_WORDS[1]} in
    map) _mproc_map ;;
    methods) _mproc_words '--json --help' "$current" ;;
    help) _mproc_words 'help map methods --help' "$current" ;;
  esac
}

complete -F _mproc mproc
