import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Where the bridge is: the node's own address, as pods see it. */
export const NODE_IP = "10.88.0.1";

/** A network namespace that hangs on the bridge. */
export interface PodNetwork {
  readonly namespace: string;
  readonly ip: string;
  remove(): Promise<void>;
}

/** Addresses are given out once: a pod that is gone must not be mistaken for a new one. */
export function podNetworks(): () => Promise<PodNetwork> {
  let made = 0;
  return async () => {
    made += 1;
    if (made > 230) throw new Error("the bridge has no further addresses");
    const namespace = `pod${made}`;
    const link = `veth${made}`;
    const ip = `10.88.0.${made + 10}`;
    await run("ip", ["netns", "add", namespace]);
    await run("ip", ["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace]);
    await run("ip", ["link", "set", link, "master", "mesh0", "up"]);
    for (const args of [
      ["addr", "add", `${ip}/24`, "dev", "eth0"],
      ["link", "set", "eth0", "up"],
      ["link", "set", "lo", "up"],
    ])
      await run("ip", ["-n", namespace, ...args]);
    return {
      namespace,
      ip,
      async remove() {
        await run("ip", ["netns", "delete", namespace]).catch(() => undefined);
      },
    };
  };
}
