#!/usr/bin/env bash
# Builds the Dockerfile for real without Docker and without a public base image, and leaves beside it a list of what is in it.
#   test/image/build.sh      prints the folder with: image.tar (OCI), rootfs/, image.json, sbom.cdx.json, size
# Needs root, buildah and debootstrap. The base is made by debootstrap once and kept outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/parley/image
suite=bookworm
mkdir -p "$cache"
exec 9>"$cache/lock" && flock 9

# vfs and chroot: neither overlay mounts nor user namespaces are to be had in a container of CI.
buildah() { command buildah --root "$cache/storage" --runroot "$cache/run" --storage-driver vfs "$@"; }

base=localhost/parley-base:$suite-slim
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  rm -rf "$cache/base"
  debootstrap --variant=minbase --include=ca-certificates,libatomic1 "$suite" "$cache/base" >&2
  # As Debian's slim images: no manuals and no translations.
  rm -rf "$cache"/base/var/cache/apt/* "$cache"/base/var/lib/apt/lists/* "$cache"/base/usr/share/{doc,man,locale}/*
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$cache/base" / >&2
  buildah commit --quiet --rm "$container" "$base" >&2
  rm -rf "$cache/base"
fi

# A machine whose registries answer under a certificate of its own lends its list of authorities to the build, not to the image.
authorities=()
if [ -n "${NODE_EXTRA_CA_CERTS:-}" ]; then
  authorities=(--secret "id=authorities,src=$NODE_EXTRA_CA_CERTS" --build-arg NODE_EXTRA_CA_CERTS=/run/authorities.crt)
fi
version=$(node -p 'require("./package.json").version')
# Times are the commit's, so that the same commit gives the same image.
buildah build --isolation chroot --layers=false --timestamp "$(git log -1 --format=%ct)" \
  --build-arg DEBIAN="$base" "${authorities[@]}" --tag "localhost/parley:$version" . >&2

out=$cache/out
rm -rf "$out" && mkdir -p "$out"
buildah push --quiet "localhost/parley:$version" "oci-archive:$out/image.tar" >&2
container=$(buildah from "localhost/parley:$version")
mounted=$(buildah mount "$container")
cp -a "$mounted" "$out/rootfs"
buildah inspect --type image "localhost/parley:$version" >"$out/image.json"
buildah umount "$container" >/dev/null
buildah rm "$container" >/dev/null

node test/image/bill-of-materials.ts "$out/rootfs" >"$out/sbom.cdx.json"
du -sm "$out/rootfs" | cut -f 1 >"$out/size"
echo "$out"
