# The package's server and client talk: FOLDER-OF-EXAMPLES FOLDER-OF-CERTS RUNTIME…
set -eu
from=$1 certs=$2
shift 2
mkfifo "$certs/port"
"$@" "$from/node_server.mjs" "$certs/cert.pem" "$certs/key.pem" \
  "$certs/psk.txt" >"$certs/port" &
trap 'kill $!' EXIT
read -r port <"$certs/port"
"$@" "$from/node_client.mjs" localhost "$port" "$certs/cert.pem" \
  "$certs/psk.txt" grüße
