import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Image, PROJECT } from "./image.ts";
import type { Manifest } from "./kube-api.ts";
import type { PodNetwork } from "./pod-network.ts";

/** How a container ended. */
export interface ContainerEnd {
  readonly exitCode: number;
  readonly atMs: number;
}

/** One container as a process: in its pod's network, with mounts of its own, as the image's user. */
export interface Container {
  readonly name: string;
  readonly startedMs: number;
  readonly end: ContainerEnd | undefined;
  readonly ended: Promise<ContainerEnd>;
  signal(name: "SIGTERM" | "SIGKILL"): void;
}

export interface ContainerOptions {
  readonly spec: Manifest;
  readonly image: Image;
  readonly network: PodNetwork;
  /** A folder of the pod's own. */
  readonly folder: string;
  /** Variables with their values found. */
  readonly env: Readonly<Record<string, string>>;
  /** Content of the ConfigMaps that are mounted below /etc, by path. */
  readonly files: Readonly<Record<string, string>>;
}

/**
 * What stands between a namespace and the program: the project as a folder that nobody can write to, the pod's files below
 * /etc, and a /tmp in memory. Each step replaces the one before it, so that signals reach the program itself.
 */
const ENTER = `set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/parley
mount --bind "$PROJECT" /mnt/parley
mount -o remount,bind,ro /mnt/parley
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$UPPER,workdir=$WORK" /etc
mount -t tmpfs -o size=16m tmpfs /tmp
cd /mnt/parley
exec setpriv --reuid "$IMAGE_USER" --regid "$IMAGE_USER" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all env -i "$@"`;

export async function startContainer(options: ContainerOptions): Promise<Container> {
  const { spec, image, network, folder, files } = options;
  const upper = join(folder, `${spec.name}-etc`);
  const work = join(folder, `${spec.name}-work`);
  await mkdir(upper, { recursive: true });
  await mkdir(work, { recursive: true });
  const hosts = `127.0.0.1 localhost\n10.88.0.1 chat.example.test parley.chat.svc.cluster.local\n`;
  for (const [path, text] of Object.entries({ ...files, "/etc/hosts": hosts })) {
    const target = join(upper, path.replace(/^\/etc\//, ""));
    await mkdir(join(target, ".."), { recursive: true });
    await writeFile(target, text);
  }
  const env = { ...image.env, PATH: "/mnt/parley/node_modules/.bin:/usr/bin:/bin", ...options.env };
  // As Kubernetes has it: `command` takes the place of ENTRYPOINT, `args` of CMD, and `command` alone drops CMD too.
  const program = spec.command ?? image.entrypoint;
  const args = spec.args ?? (spec.command === undefined ? image.command : []);
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const log = openSync(join(folder, `${spec.name}.log`), "a");
  const child = spawn(
    "ip",
    [
      "netns",
      "exec",
      network.namespace,
      ...["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", ENTER, "container"],
      ...variables,
      ...program,
      ...args,
    ],
    {
      stdio: ["ignore", log, log],
      env: {
        PATH: process.env.PATH ?? "",
        PROJECT,
        UPPER: upper,
        WORK: work,
        IMAGE_USER: String(image.user),
      },
    },
  );
  closeSync(log);
  return asContainer(spec.name, child);
}

function asContainer(name: string, child: ChildProcess): Container {
  let end: ContainerEnd | undefined;
  const ended = once(child, "exit").then(([code]) => {
    // 128 and the signal's number, as shells say it; which one does not matter here.
    end = { exitCode: (code as number | null) ?? 143, atMs: Date.now() };
    return end;
  });
  return {
    name,
    startedMs: Date.now(),
    ended,
    get end() {
      return end;
    },
    signal: (signal) => void child.kill(signal),
  };
}
