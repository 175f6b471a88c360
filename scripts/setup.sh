#!/usr/bin/env bash
# Installs what the tests, the demo and the benchmark need and this Debian machine lacks:
# Tarantool from the release it runs, Consul from the release before it.
set -euo pipefail

# What a fresh image may lack: a C compiler for the TLS library, openssl for the tests' certificates,
# iproute2 for the stories that cut hosts off with network namespaces.
packages=(tarantool gcc libc6-dev openssl iproute2 curl)

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
need_consul=no
command -v consul >/dev/null || need_consul=yes

if [ ${#missing[@]} -eq 0 ] && [ "$need_consul" = no ]; then
    exit 0
fi

# Debian starts the services it installs; these are for us to start, and only while a test runs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy"
    trap 'as_root rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
say "refreshing the package lists"
as_root apt-get -qq update

if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    as_root apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ "$need_consul" = yes ]; then
    # bookworm has no consul, bullseye does. The extra source is this machine's own one with the
    # release's name replaced, pinned so low that nothing but consul ever comes from it.
    say "installing consul from bullseye"
    lists=$(mktemp -d)
    sources=$lists/bullseye.sources
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
    [ -n "$mirror" ] || { say "no apt source for bookworm on this machine, so none to derive bullseye's from"; exit 1; }
    printf 'Types: deb\nURIs: %s\nSuites: bullseye\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$mirror" >"$sources"
    as_root install -m 644 "$sources" /etc/apt/sources.list.d/tarsec-bullseye.sources
    printf 'Package: *\nPin: release n=bullseye\nPin-Priority: 1\n\nPackage: consul\nPin: release n=bullseye\nPin-Priority: 500\n' >"$lists/pin"
    as_root install -m 644 "$lists/pin" /etc/apt/preferences.d/tarsec-bullseye
    rm -rf "$lists"
    as_root apt-get -qq update
    as_root apt-get -qq install -y --no-install-recommends consul >/dev/null
fi
say "done: $(consul version | head -n 1), $(tarantool --version | head -n 1)"
