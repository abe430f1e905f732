#!/bin/sh
# Makes a Debian trixie folder in which the real picamera2 runs on libcamera's `virtual` pipeline. Needs root.
#
#   setup.sh FOLDER CHECKOUT
#
# Each step leaves a mark in FOLDER/.done, so that a run that was cut off goes on where it stopped and a finished
# folder is used again at once. The mirror and pip's settings are those of this machine: nothing is named here.
# Trixie, because bookworm's libcamera has no `virtual` pipeline. No compiler is installed: picamera2's two
# dependencies without wheels are taken from Debian (prctl) or stubbed (PiDNG: raw photographs, never used).
set -eu

root=$1
checkout=$2
here=$(dirname "$(readlink -f "$0")")
suite=trixie
marks=$root/.done
packages=python3-venv,python3-libcamera,libcamera-ipa,python3-prctl,ca-certificates

step() { # NAME WORDS: says what is done, unless it is done already
  [ -e "$marks/$1" ] && return 1
  echo "$(date +%T) $2"
}
done_() { mkdir -p "$marks" && touch "$marks/$1"; }

thrice() { # COMMAND...: what needs the network, which may be away for a moment
  for pause_s in 10 30; do
    "$@" && return 0
    echo "$(date +%T) once more in $pause_s s: $1" >&2
    sleep "$pause_s"
  done
  "$@"
}

in_root() {
  chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

if step base "unpacking Debian $suite into $root (about 90 s)"; then
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | head -n 1)
  [ -n "$mirror" ] || { echo "no Debian mirror in this machine's apt sources; add one to /etc/apt/sources.list" >&2; exit 1; }
  debian_into_root() {
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror"
  }
  thrice debian_into_root >"$root.log" 2>&1 ||
    { tail -n 20 "$root.log" >&2; exit 1; }
  done_ base
fi

if step pip "installing picamera2 and the agent's dependencies (about 60 s)"; then
  for file in /etc/pip.conf /root/.config/pip/pip.conf /etc/resolv.conf /etc/hosts; do
    [ -e "$file" ] && mkdir -p "$root$(dirname "$file")" && cp -L "$file" "$root$file"
  done
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  in_root python3 -m venv --system-site-packages /opt/venv
  in_root /opt/venv/bin/python - "$(cat "$checkout/pyproject.toml")" >"$root/opt/requirements.txt" <<'PY'
import sys, tomllib
print("\n".join(tomllib.loads(sys.argv[1])["project"]["dependencies"]))
PY
  thrice in_root /opt/venv/bin/pip install --quiet --disable-pip-version-check --only-binary=:all: -r /opt/requirements.txt
  thrice in_root /opt/venv/bin/pip install --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
    picamera2==0.3.38 piexif==1.1.3 simplejpeg==1.9.0 videodev2==0.0.4 pillow==13.0.0 tqdm jsonschema
  done_ pip
fi

# Always fresh: the agent itself, the shims and the scene that the virtual camera shows.
rm -rf "$root/opt/wardpost"
mkdir -p "$root/opt/wardpost"
cp -r "$checkout/agent" "$root/opt/wardpost/agent"
cp -r "$here" "$root/opt/wardpost/rig"
echo "$(date +%T) ready: $root"
