import { expect, test } from "vitest";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import {
  type Caller,
  callerOf,
  expectInLog,
  expectNoneRepeated,
  expectWhole,
  persist,
  type TurnResponse,
  turnIdOf,
} from "./clients.ts";
import { PACED_REPLY, startParts } from "./parts.ts";

// Two processes are replaced by two others under 200 streams. A client whose stream ends goes to another process and reads
// on where it was; one that has no turn yet asks again with its key.

const STREAMS = 200;

interface Service {
  readonly process: ServiceProcess;
  readonly callers: readonly Caller[];
}

test("a rolling restart under 200 streams loses no turn, doubles and drops no event, and repeats only cut calls", {
  timeout: 120_000,
}, async () => {
  const { startReplica, model, logOf, toolCalls } = await startParts();
  const start = async (): Promise<Service> => {
    const process = await startReplica({ LEASE_MS: "5000", DRAIN_MS: "500" });
    return { process, callers: threeWires.map((wire) => callerOf(process, wire)) };
  };
  /** What a load balancer sends calls to. */
  let serving = await Promise.all([start(), start()]);
  // What takes their place is there before they leave.
  const successors = await Promise.all([start(), start()]);
  const processes = [...serving, ...successors].map((service) => service.process);
  let handedOver = 0;
  const converse = async (index: number): Promise<{ message: string; events: TurnResponse[] }> => {
    const agentTeam = index % 4 === 0 ? "pay" : "paced";
    const message = `stream ${index} of ${agentTeam}`;
    const callerFor = (attempt: number): Caller => {
      const service = serving[(index + attempt) % serving.length] as Service;
      return service.callers[index % 3] as Caller;
    };
    const onTrouble = () => void handedOver++;
    return { message, events: await persist(message, { agentTeam, callerFor, onTrouble, deadlineMs: 100_000 }) };
  };
  const conversations = Promise.all(Array.from({ length: STREAMS }, (_, index) => converse(index)));

  await eventually(() => expect(model.callCount).toBeGreaterThanOrEqual(STREAMS), { timeout: 20_000 });
  for (const next of successors) {
    const [leaving, staying] = serving as [Service, Service];
    serving = [staying, next];
    leaving.process.send("SIGTERM");
    expect(await leaving.process.ended).toEqual({ code: 0, signal: null });
    expect(leaving.process.logged({ level: "error" })).toEqual([]);
  }

  const all = await conversations;
  expect(handedOver).toBeGreaterThan(STREAMS / 4);
  const tools = await toolCalls();
  for (const { message, events } of all) {
    const messages = expectWhole(events);
    const turnId = turnIdOf({ events });
    const log = await logOf(turnId);
    expectInLog({ events }, log);
    expect(events).toHaveLength(log.length);
    const pays = message.endsWith("pay");
    if (!pays) expect(messages).toEqual([PACED_REPLY]);
    // A call is made again only where it was cut, once for each time the turn moved.
    const repeated = expectNoneRepeated(model, message, pays ? 3 : 1);
    const moves = processes.flatMap((one) => one.logged({ msg: "turn taken over from a lost owner", turn_id: turnId }));
    expect(repeated).toBeLessThanOrEqual(moves.length);
    const restarts = events.filter(({ event }) => event.case === "stepRestarted");
    expect(restarts.length).toBeLessThanOrEqual(moves.length);
    if (pays) expect(tools.filter((line) => line.includes(turnId)).length).toBeLessThanOrEqual(1);
  }
});
