# What the makers of both machines share: build.sh (a node that loses its power) and card/build.sh (a stock system for a
# card). Sourced with `folder` set; Debian's mirror is the one in this machine's apt settings: nothing is named here.
# shellcheck shell=sh

root=$folder/root
marks=$folder/.done
mkdir -p "$folder"

step() { # MARK WORDS: says what is done, unless it is done already
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

units() { # as systemctl in the root; trixie's complains at length that a chroot has no /proc, and works
  in_root systemctl --quiet "$@" 2>"$folder/systemctl.log" || { cat "$folder/systemctl.log" >&2; exit 1; }
}

unpack_debian() { # SUITE PACKAGES: a root folder, and its kernel and initial RAM disk beside it
  rm -rf "$root" "$marks"
  sources=
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    grep -qs "$1" "$file" && sources=$file && break
  done
  if [ -z "$sources" ]; then  # this machine runs another release of Debian: its mirror has this one too
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | head -n 1)
    [ -n "$mirror" ] || { echo "no Debian mirror in this machine's apt sources; add one to /etc/apt/sources.list" >&2; exit 1; }
    sources=$mirror
  fi
  thrice debian_into_root "$1" "$2" "$sources" >"$folder/mmdebstrap.log" 2>&1 || { tail -n 20 "$folder/mmdebstrap.log" >&2; exit 1; }
  cp "$root"/boot/vmlinuz-* "$folder/vmlinuz"
  cp "$root"/boot/initrd.img-* "$folder/initrd"
}

debian_into_root() { # SUITE PACKAGES SOURCES
  rm -rf "$root"
  # The initial RAM disk holds only what this machine boots from: under emulation every megabyte costs.
  mmdebstrap --quiet --mode=root --variant=minbase --include="$2" \
    --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "5"' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
    --essential-hook='echo MODULES=list >"$1/etc/initramfs-tools/conf.d/wardpost"' \
    --essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$1/etc/initramfs-tools/modules"' \
    "$1" "$root" "$3"
}

mask_idle_units() { # nothing that a post would miss: under emulation every started program costs a second
  units set-default multi-user.target
  units mask systemd-timesyncd.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-pstore.service e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
    getty-static.service getty@tty1.service serial-getty@ttyS0.service serial-getty@hvc0.service systemd-fsckd.socket \
    modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
    modprobe@loop.service sys-kernel-debug.mount sys-kernel-tracing.mount dev-mqueue.mount dev-hugepages.mount
}

tidy_root() { # what a package manager leaves
  in_root apt-get clean
  rm -rf "$root"/var/lib/apt/lists/* "$root"/root/.cache "$root"/dev/*
  : >"$root/etc/machine-id"
}
