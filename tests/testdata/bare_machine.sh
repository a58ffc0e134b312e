#!/bin/sh
# Unpacks an archive on a machine that has a shell, a few tools and openssl, but no
# Node and no npm; then a server and a client talk there.
#
# Usage, in a mount namespace: bare_machine.sh ARCHIVE FOLDER
set -eu
root=/mnt
mount -t tmpfs none $root
mkdir -p $root/bin $root/opt $root/proc $root/dev $root/tmp $root/etc $root/root
tar xzf "$1" -C $root/opt

# What programs need of the system's libraries.
libraries() {
  ldd "$1" | grep -o '/[^ )]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -Ln "$library" "$root$library"
  done
}
for tool in sh readlink dirname cat sleep openssl; do
  cp -L "$(command -v $tool)" $root/bin/
  libraries "$(command -v $tool)"
done
libraries "$root/opt/$2/deno"
config=$(openssl version -d | cut -d '"' -f 2)
mkdir -p "$root$config"
cp -L "$config/openssl.cnf" "$root$config/"
echo 'root:x:0:0::/root:/bin/sh' >$root/etc/passwd
echo '127.0.0.1 localhost' >$root/etc/hosts
mount -t proc proc $root/proc
mount --rbind /dev $root/dev

cat >$root/talk <<'END'
set -eu
cd /tmp
innerlock() { "$INNERLOCK" "$@"; }
innerlock certs >&2
"$INNERLOCK" server --port 0 >port 2>log &
server=$!
trap 'kill $server' EXIT
while ! read -r line <port; do kill -0 $server || { cat log >&2; exit 1; }; sleep 0.1; done
innerlock client --port "${line##*:}" hello
END
exec env -i PATH=/bin INNERLOCK="/opt/$2/innerlock" \
  "$(command -v chroot)" $root /bin/sh /talk
