#!/bin/sh
# rootfs.sh KANSOKU DIRECTORY [SBOM]: all that the agent's image has. The agent, the libraries that it is linked with, what it
# is made of, the authorities that sign backends' certificates, and cat and rm, by which kubectl-kansoku fetches a profile.
set -eu
agent=$1
root=$2

add() {
    mkdir -p "$root$(dirname "$2")"
    cp -L "$1" "$root$2"
    for library in $(ldd "$1" | grep -o '/[^ ]*' || true); do
        [ "$library" = "$1:" ] || [ -e "$root$library" ] || {
            mkdir -p "$root$(dirname "$library")"
            cp -L "$library" "$root$library"
        }
    done
}

add "$agent" /usr/local/bin/kansoku
add "$(command -v cat)" /usr/local/bin/cat
add "$(command -v rm)" /usr/local/bin/rm
[ $# -lt 3 ] || { mkdir -p "$root/usr/share/sbom" && cp "$3" "$root/usr/share/sbom/kansoku.cdx.json"; }
mkdir -p "$root/etc/ssl/certs"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
# What the chart mounts into.
mkdir -p "$root/etc/kansoku" "$root/var/lib/kansoku" "$root/run/kansoku" "$root/proc" "$root/sys" "$root/dev"
mkdir -p "$root/tmp"
chmod 1777 "$root/tmp"
