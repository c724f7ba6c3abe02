#!/usr/bin/env bash
# Runs a command where the mesh test's network is: a network namespace of its own, from which nothing leaves the machine,
# with the bridge that the pods hang on; with mounts of its own, so that names of hosts and of namespaces are its own too; and
# with processes of its own, which end with the command.
# Needs root. test/mesh/enter.sh vitest run --config vitest.mesh.config.ts
set -euo pipefail
if [ "${PARLEY_MESH:-}" != inside ]; then
  export PARLEY_MESH=inside
  exec unshare --net --mount --propagation private --pid --fork --kill-child --mount-proc "$0" "$@"
fi
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
hosts=$(mktemp)
printf '127.0.0.1 localhost\n10.88.0.1 chat.example.test parley.chat.svc.cluster.local\n' >"$hosts"
mount --bind "$hosts" /etc/hosts
rm -f "$hosts"
ip link set lo up
ip link add mesh0 type bridge
ip addr add 10.88.0.1/24 dev mesh0
ip link set mesh0 up
unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy ALL_PROXY all_proxy
exec "$@"
