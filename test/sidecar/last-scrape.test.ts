import { once } from "node:events";
import { expect, onTestFinished, test, vi } from "vitest";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { call, settled } from "../accounts/calls.ts";
import { startRedisServer } from "../support/redis-server.ts";
import { type SidecarProcess, startSidecarProcess } from "../support/sidecar-process.ts";

const tenant = "default";

/** A sidecar that has counted a call, told by the ledger's standing alone: nobody has scraped it. */
async function startCounted({ scraped }: { scraped: boolean }): Promise<SidecarProcess> {
  const server = await startRedisServer();
  onTestFinished(() => server.stop());
  const connection = connectRedis(server.url);
  onTestFinished(() => connection.close());
  const sidecar = await startSidecarProcess({ REDIS_URL: server.url, SIDECAR_LAST_SCRAPE_MS: "60000" });
  onTestFinished(() => void sidecar.child.kill("SIGKILL"));
  if (scraped) await counted(sidecar);
  const accounts = createRedisAccountStore({ connection });
  await accounts.hold(call("c1", { tenant }));
  await accounts.settle(settled("c1", { tenant }));
  await vi.waitFor(
    async () => {
      const keys = await server.keys("*rollup:hour*");
      expect(keys).toHaveLength(1);
    },
    { timeout: 20_000 },
  );
  return sidecar;
}

async function counted({ opsUrl }: SidecarProcess): Promise<number> {
  const text = await (await fetch(`${opsUrl}/metrics`)).text();
  return Number(/^parley_ledger_rows_applied_total\{.*\} (\d+)$/m.exec(text)?.[1] ?? 0);
}

test("a sidecar that is told to stop waits for a scrape of what it has counted, and no longer", async () => {
  const sidecar = await startCounted({ scraped: true });
  const ended = once(sidecar.child, "exit");
  sidecar.child.kill("SIGTERM");
  // Its port for calls is closed, and the one for scrapes is not.
  await vi.waitFor(() => expect(fetch(sidecar.url)).rejects.toThrow(), { timeout: 20_000 });
  expect(sidecar.child.exitCode).toBeNull();
  expect(await counted(sidecar)).toBe(1);
  expect((await ended)[0]).toBe(0);
});

test("one that nobody scrapes ends without waiting", async () => {
  const sidecar = await startCounted({ scraped: false });
  const ended = once(sidecar.child, "exit");
  sidecar.child.kill("SIGTERM");
  expect((await ended)[0]).toBe(0);
});
