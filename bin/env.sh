# Sourced by the other commands in bin/: one PATH, one locale and one --help for all of them. Source it before anything
# is built or installed.

# With --help among its arguments, a command only prints the comment at its own head. Not if a shell sources this file for
# itself: then it has no caller.
asked=${BASH_SOURCE[1]:-}
asked=bin/${asked##*/}
if [ -f "$asked" ] && [[ " $* " = *" --help "* || " $* " = *" -h "* ]]; then
  sed -n -e '1d' -e '/^#/!q' -e 's/^# \{0,1\}//p' "$asked"
  exit 0
fi

# Where rustup, uv and pip install programs for a single user.
for dir in "$HOME/.cargo/bin" "$HOME/.local/bin"; do
  case ":$PATH:" in
    *":$dir:"*) ;;
    *) [ -d "$dir" ] && PATH="$dir:$PATH" ;;
  esac
done
export PATH

# The Erlang VM reads file names and source as Latin-1 unless the locale says UTF-8.
case "${LC_ALL:-${LC_CTYPE:-${LANG:-}}}" in
  *UTF-8* | *utf8* | *UTF8*) ;;
  *) export LC_ALL=C.UTF-8 ;;
esac

# version_of PROGRAM...: the first dotted number that `PROGRAM... --version` prints, or nothing.
version_of() {
  "$@" --version 2>/dev/null | grep -Eo '[0-9]+(\.[0-9]+)+' | head -n 1
}

# at_least HAVE WANT: whether the dotted version HAVE is WANT or newer.
at_least() {
  [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# Prints the absolute path of the first Python 3 on PATH that Snex can use. Version managers such as pyenv put
# shims on PATH that work only inside some folders, so each candidate is asked for its real path.
find_python() {
  local name path
  for name in python3 python python3.14 python3.13 python3.12 python3.11 python3.10; do
    command -v "$name" >/dev/null 2>&1 || continue
    path=$("$name" -c 'import sys; print(sys.executable if sys.version_info >= (3, 10) else "")' 2>/dev/null)
    [ -n "$path" ] && printf '%s\n' "$path" && return 0
  done
  return 1
}
