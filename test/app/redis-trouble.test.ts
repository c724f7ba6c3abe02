import { beforeAll, expect, test } from "vitest";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import type { RedisServer } from "../support/redis-server.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import {
  bytesOf,
  callerOf,
  expectInLog,
  expectNoneRepeated,
  expectWhole,
  persist,
  type TurnResponse,
  turnIdOf,
} from "./clients.ts";
import { PACED_REPLY, shareParts } from "./parts.ts";

// Redis, or the way of one process to it, is in trouble amid turns. Clients call again where they are told to.

const parts = shareParts();
let proxy: FaultProxy;
/** Behind the proxy, and not. */
let services: [ServiceProcess, ServiceProcess];

beforeAll(async () => {
  const { startReplica, redis } = parts();
  proxy = await startFaultProxy(redis);
  services = await Promise.all([
    startReplica({ LEASE_MS: "1000", REDIS_URL: `redis://127.0.0.1:${proxy.port}` }),
    startReplica({ LEASE_MS: "1000" }),
  ]);
  return () => proxy.stop();
});

let flapping: ReturnType<typeof setTimeout> | undefined;

interface Trouble {
  readonly name: string;
  /** How long it lasts, in milliseconds. */
  readonly forMs: number;
  begin(redis: RedisServer): void | Promise<void>;
  end(redis: RedisServer): void | Promise<void>;
}

const troubles: readonly Trouble[] = [
  {
    name: "Redis is killed and comes back with its file",
    forMs: 500,
    begin: (redis) => redis.kill(),
    end: (redis) => redis.restart(),
  },
  {
    name: "Redis stands still for five seconds",
    forMs: 5_000,
    begin: (redis) => redis.pause(true),
    end: (redis) => redis.pause(false),
  },
  { name: "the connection is cut and refused", forMs: 2_500, begin: () => proxy.cut(), end: () => proxy.heal() },
  { name: "the connection stalls", forMs: 4_000, begin: () => proxy.stall(), end: () => proxy.heal() },
  { name: "the connection is slow", forMs: 3_000, begin: () => proxy.slow(300), end: () => proxy.heal() },
  {
    name: "it is cut whenever it has come back",
    forMs: 4_000,
    begin() {
      let waitMs = 150;
      const again = (): void => {
        proxy.cut();
        proxy.heal();
        proxy.slow(60);
        // Now before, now amid, now after what a client says first.
        waitMs = waitMs > 400 ? 150 : waitMs + 37;
        flapping = setTimeout(again, waitMs);
      };
      again();
    },
    end() {
      clearTimeout(flapping);
      proxy.heal();
    },
  },
  {
    name: "the connection loses a piece in twelve",
    forMs: 4_000,
    begin: () => proxy.lose(1 / 12),
    end: () => proxy.heal(),
  },
];

test.each(troubles)(
  "$name: every turn comes to its one end, and nothing that was delivered is unsaid",
  async (trouble) => {
    const { redis, model, logOf, toolCalls } = parts();
    const delivered = new Map<string, TurnResponse[]>();
    const turns = Array.from({ length: 12 }, async (_, index) => {
      const agentTeam = index % 3 === 0 ? "pay" : "paced";
      const message = `${trouble.name} ${index}`;
      const events = await persist(message, {
        agentTeam,
        // Half begin behind the proxy; who is sent away tries the other one.
        callerFor: (attempt) => callerOf(services[(index + attempt) % 2] as ServiceProcess, threeWires[index % 3]),
        onTrouble: (_, soFar) => delivered.set(message, [...soFar]),
      });
      return { message, agentTeam, events };
    });
    const isOfTrouble = ({ content }: { content?: string }): boolean => content?.startsWith(trouble.name) ?? false;
    await eventually(
      () => expect(model.calls.filter(({ messages }) => messages.some(isOfTrouble)).length).toBeGreaterThanOrEqual(12),
      { timeout: 20_000 },
    );
    await trouble.begin(redis);
    // It lasts as long as it lasts, whatever happens meanwhile.
    await new Promise((resolve) => setTimeout(resolve, trouble.forMs));
    await trouble.end(redis);

    const tools = await toolCalls();
    for (const { message, agentTeam, events } of await Promise.all(turns)) {
      const messages = expectWhole(events);
      if (agentTeam === "paced") expect(messages).toEqual([PACED_REPLY]);
      const log = await logOf(turnIdOf({ events }));
      expectInLog({ events }, log);
      expect(events).toHaveLength(log.length);
      const early = delivered.get(message) ?? [];
      expect(events.slice(0, early.length).map(bytesOf)).toEqual(early.map(bytesOf));
      expectNoneRepeated(model, message, agentTeam === "pay" ? 3 : 1);
      expect(tools.filter((line) => line.includes(turnIdOf({ events }))).length).toBeLessThanOrEqual(1);
      const started = events[0]?.event;
      const sessionId = started?.case === "turnStarted" ? started.value.sessionId : "";
      expect(await callerOf(services[1]).history(sessionId)).toEqual([message, ...messages]);
    }
    for (const service of services) expect(service.errorOutput()).toBe("");
    await eventually(
      async () => {
        for (const service of services) expect((await service.readiness()).status).toBe(200);
      },
      { timeout: 20_000 },
    );
  },
);
