# Sourced by ./lab and ./test: turns a bare Debian 12 machine into one that can build and run this project.
# Installs what debian-packages.txt lists and finds the Rust toolchain; starts nothing.
# shellcheck shell=bash

if [ "$(id -u)" -ne 0 ]; then
  echo "$0: needs root for namespaces, cgroups and packages: run it with sudo" >&2
  exit 1
fi

pvc_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# sudo hides the caller's toolchain. It is used from there, but root keeps its own registry cache, so that no file
# in the caller's home ends up owned by root.
pvc_caller_home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
for bin in "$HOME/.cargo/bin" "$pvc_caller_home/.cargo/bin"; do
  if ! command -v cargo >/dev/null && [ -x "$bin/cargo" ]; then
    PATH=$bin:$PATH
    if [ -z "${RUSTUP_HOME:-}" ] && [ -d "${bin%/.cargo/bin}/.rustup" ]; then
      export RUSTUP_HOME=${bin%/.cargo/bin}/.rustup
    fi
  fi
done
PATH=$PATH:$HOME/.cargo/bin
export PATH
if ! command -v cargo >/dev/null; then
  echo "$0: found no cargo: install Rust 1.92 or later from https://rustup.rs" >&2
  exit 1
fi

pvc_wanted=() pvc_missing=()
while read -r package; do
  case $package in '' | '#'*) ;; *) pvc_wanted+=("$package") ;; esac
done < "$pvc_root/crates/lab/debian-packages.txt"
for package in "${pvc_wanted[@]}"; do
  if [ "$(dpkg-query -W -f '${db:Status-Status}' "${package%%/*}" 2>/dev/null)" != installed ]; then
    pvc_missing+=("$package")
  fi
done
if [ ${#pvc_missing[@]} -gt 0 ]; then
  echo "installing ${pvc_missing[*]%%/*}" >&2
  # All wanted packages are named, not only the missing ones: a foreign qemu-utils must be replaced with its siblings.
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq </dev/null >&2
  (
    # Installing is not running: no libvirtd shall start on this machine because its program is needed.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ] || grep -q 'made by pvc-lab' "$policy"; then
      trap 'rm -f "$policy"' EXIT
      printf '#!/bin/sh\n# made by pvc-lab for the time of an installation\nexit 101\n' > "$policy"
      chmod 755 "$policy"
    fi
    apt-get install -qq -y --no-install-recommends --allow-downgrades \
      -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 "${pvc_wanted[@]}" </dev/null >&2
  )
fi

# What drives the browser of the page's test is no package of Debian's.
pvc_page=$pvc_root/target/page-test
if ! cmp -s "$pvc_root/crates/lab/tests/page/requirements.txt" "$pvc_page/installed.txt"; then
  rm -rf "$pvc_page"
  PIP_ROOT_USER_ACTION=ignore /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --no-deps \
    --require-hashes --only-binary :all: --target "$pvc_page" -r "$pvc_root/crates/lab/tests/page/requirements.txt" \
    </dev/null >&2
  cp "$pvc_root/crates/lab/tests/page/requirements.txt" "$pvc_page/installed.txt"
fi
