#!/bin/sh
# The `innerlock` command of the archive: runs a program as its task in deno.json
# does, with the Deno that lies beside it. `deno task pack` has put in what stands
# between @ and @.
here=$(dirname -- "$(readlink -f -- "$0")")

case ${1-} in
-h | --help)
  cat <<'END'
@USAGE@
END
  exit
  ;;
--version)
  echo 'innerlock @VERSION@'
  exit
  ;;
@COMMANDS@
'')
  echo 'innerlock: No command given: innerlock --help lists the commands' >&2
  exit 2
  ;;
*)
  printf 'innerlock: Unknown command %s: innerlock --help lists the commands\n' "$1" >&2
  exit 2
  ;;
esac

export DENO_NO_UPDATE_CHECK=1
# If it cannot be started, the shell says why.
trap 'exit 1' EXIT
exec "$here/deno" "$@"
