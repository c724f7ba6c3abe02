import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WRITTEN_SCHEMA_KEY } from "../../src/store/redis-keys.ts";
import { SCHEMA_VERSION } from "../../src/store/stored-formats.ts";
import {
  askGate,
  checkAffinity,
  checkEjection,
  checkPreview,
  checkRestart,
  checkSplit,
  expectBillEqual,
  expectLeftInOrder,
  expectNoneLost,
  expectNoTrouble,
  runTurns,
  trackOf,
} from "./checks.ts";
import type { Manifest } from "./kube-api.ts";
import { type Mesh, startMesh } from "./mesh.ts";
import { QUICK } from "./model-double.ts";
import { until } from "./processes.ts";

// A release's whole way, as a release engineer goes it: one test after the other, on one cluster.

const STREAMS = 200;
/** A reply of about eight seconds. */
const SLOW_REPLY = { ...QUICK, pieces: 40, pieceMs: 200 };
const IMAGES = { old: "registry.test/parley:0.5.0", new: "registry.test/parley:0.6.0" };
const ROUTES = "/apis/networking.istio.io/v1/namespaces/chat/virtualservices/parley";

let mesh: Mesh;
beforeAll(async () => {
  mesh = await startMesh();
});
afterAll(() => mesh?.stop());

async function upgraded(values: Manifest, flags: readonly string[] = []): Promise<void> {
  const { code, stderr } = await mesh.upgrade(values, { flags });
  expect(code, stderr).toBe(0);
}

function canary(tag: string, more: Manifest = {}): Manifest {
  return { canary: { enabled: true, image: { tag }, ...more } };
}

/** Open streams on all tracks that serve, once each of them speaks. */
async function openStreams(): Promise<{ ended: ReturnType<typeof runTurns> }> {
  for (const image of Object.values(IMAGES)) mesh.behave(image, SLOW_REPLY);
  const before = mesh.model.calls.length;
  const ended = runTurns(STREAMS, { callers: mesh.callers(8), atATime: STREAMS });
  ended.catch(() => undefined);
  await until("all streams to be open", () => mesh.model.calls.length >= before + STREAMS);
  for (const image of Object.values(IMAGES)) mesh.behave(image, QUICK);
  return { ended };
}

test("install: the pods get ready, and helm test runs a turn", async () => {
  await upgraded({});
  await mesh.routed();
  expect(mesh.podsOf("stable")).toHaveLength(2);
  for (const { started } of mesh.podsOf("stable")) expect(started).toEqual(["sidecar", "parley"]);
  const { code, stderr } = await mesh.helm("test", "parley", "--timeout", "60s");
  expect(code, stderr).toBe(0);
});

test("200 streams through the gateway come whole, each paid for once", async () => {
  const { ended } = await openStreams();
  const seen = await ended;
  expectNoneLost(mesh, seen);
  expectNoTrouble(seen);
  expect(new Set(seen.map(trackOf))).toEqual(new Set(["stable"]));
  await expectBillEqual(mesh);
});

test("one client's mistakes eject no pod, a pod's own do, and never all", () => checkEjection(mesh));

test("a canary at weight 0 is reached by the header, and by nothing else", async () => {
  await upgraded(canary("0.6.0"));
  await mesh.routed();
  await checkPreview(mesh);
  const { code, stderr } = await mesh.helm("test", "parley", "--timeout", "60s");
  expect(code, stderr).toBe(0);
});

test("a weight of 10 is a tenth of new sessions, and sessions go back to the version that began them", async () => {
  await upgraded(canary("0.6.0", { weight: 10 }));
  await mesh.routed();
  await checkSplit(mesh, { percent: 10, turns: 600 });
  await checkPreviewStill();
  await checkAffinity(mesh, { version: "0.6.0", track: "canary" });
  await checkAffinity(mesh, { version: "0.5.0", track: "stable" });
  await expectBillEqual(mesh);
});

async function checkPreviewStill(): Promise<void> {
  const seen = await runTurns(20, { callers: mesh.callers(1, { "x-parley-track": "canary" }) });
  expect(new Set(seen.map(trackOf))).toEqual(new Set(["canary"]));
}

describe("the gate, of a canary", () => {
  test.each([
    { name: "that is no worse", tag: "0.6.1", behaviour: {}, turns: 60, code: 0, says: /^PASS/m },
    {
      name: "that costs twice",
      tag: "0.6.2",
      behaviour: { promptTokens: 1_200 },
      turns: 60,
      code: 1,
      says: /^fail +cost/m,
    },
    {
      name: "that is slow",
      tag: "0.6.3",
      behaviour: { firstMs: 800 },
      turns: 60,
      code: 1,
      says: /^fail +time to first/m,
    },
    {
      name: "that fails on one turn in ten",
      tag: "0.6.4",
      behaviour: { refusesEvery: 10 },
      turns: 60,
      code: 1,
      says: /^fail +share/m,
    },
    { name: "with ten turns only", tag: "0.6.5", behaviour: {}, turns: 10, code: 2, says: /^UNKNOWN/m },
  ])("$name, exits $code", async ({ tag, behaviour, turns, code, says }) => {
    mesh.behave(`registry.test/parley:${tag}`, { ...QUICK, ...behaviour });
    await upgraded(canary(tag));
    await mesh.routed();
    await runTurns(60, { callers: mesh.callers(2) });
    const callers = mesh.callers(2, { "x-parley-track": "canary" });
    // A turn that a model refuses is a failed turn, and no call that a client could make again.
    const all = Array.from({ length: turns }, () => runTurns(1, { callers }).catch(() => undefined));
    await Promise.all(all);
    const said = await askGate(mesh, { canaryTurns: turns });
    expect(said.output).toMatch(says);
    expect(said.code).toBe(code);
  });
});

test("promotion under 200 open streams loses none, and pays for none twice", async () => {
  await upgraded(canary("0.6.0", { weight: 50, replicas: 2 }));
  await mesh.routed();
  const old = mesh.podsOf("stable");
  const { ended } = await openStreams();
  await upgraded(canary("0.6.0", { weight: 0, replicas: 2 }));
  // Both tracks run one image now, and the canary still holds its streams.
  await upgraded({ ...canary("0.6.0", { weight: 0, replicas: 2 }), stable: { image: { tag: "0.6.0" } } });
  const seen = await ended;
  expectNoneLost(mesh, seen);
  expectNoTrouble(seen);
  expect(new Set(seen.map(trackOf))).toEqual(new Set(["stable", "canary"]));
  await upgraded({ stable: { image: { tag: "0.6.0" } } });
  await until(
    "the canary and the old pods to go",
    () => mesh.podsOf("canary").length === 0 && old.every(({ gone }) => gone),
  );
  await mesh.routed();
  const after = await runTurns(20, { callers: mesh.callers(2) });
  expect(versionsOf(after)).toEqual(new Set(["0.6.0"]));
  expectLeftInOrder(mesh);
  await expectBillEqual(mesh);
});

function versionsOf(turns: Awaited<ReturnType<typeof runTurns>>): Set<string> {
  return new Set(
    turns.map(({ events: [first] }) => (first?.event.case === "turnStarted" ? first.event.value.version : "")),
  );
}

test("an abort under 200 open streams loses none, and nobody gets to the canary any more", async () => {
  const stable = { stable: { image: { tag: "0.6.0" } } };
  await upgraded({ ...stable, ...canary("0.5.0", { weight: 50, replicas: 2 }) });
  await mesh.routed();
  const { ended } = await openStreams();
  await upgraded({ ...stable, ...canary("0.5.0", { weight: 0, replicas: 2, preview: { enabled: false } }) });
  await mesh.routed();
  const later = await runTurns(30, { callers: mesh.callers(2, { "x-parley-track": "canary" }) });
  expect(new Set(later.map(trackOf))).toEqual(new Set(["stable"]));
  await upgraded(stable);
  const seen = await ended;
  expectNoneLost(mesh, seen);
  expectNoTrouble(seen);
  expect(new Set(seen.map(trackOf))).toEqual(new Set(["stable", "canary"]));
  await until("the canary to go", () => mesh.podsOf("canary").length === 0);
  await expectBillEqual(mesh);
});

test("a rolling restart under load fails no turn", async () => {
  await upgraded({});
  await mesh.routed();
  await checkRestart(mesh, restartStable);
  await expectBillEqual(mesh);
});

/** What `kubectl rollout restart` does. */
async function restartStable(): Promise<void> {
  const annotations = { "kubectl.kubernetes.io/restartedAt": new Date().toISOString() };
  const body = { spec: { template: { metadata: { annotations } } } };
  await mesh.api.mergePatch("/apis/apps/v1/namespaces/chat/deployments/parley-stable", body, "kubectl-rollout");
}

test("helm rollback under load fails no turn", async () => {
  await upgraded({ image: { repository: "registry.test/parley", tag: "0.7.0" } });
  await mesh.routed();
  await checkRestart(mesh, async () => {
    const { code, stderr } = await mesh.helm("rollback", "parley", "--wait", "--timeout", "120s");
    expect(code, stderr).toBe(0);
  });
  expect(mesh.podsOf("stable").map(({ image }) => image)).toEqual([IMAGES.old, IMAGES.old]);
  await expectBillEqual(mesh);
});

test("what no registry has never serves: the rollout stops, the old pods stay, and the upgrade is taken back", async () => {
  const { code } = await mesh.upgrade(
    { image: { repository: "registry.test/parley", tag: "NONE" } },
    { flags: ["--rollback-on-failure", "--timeout", "10s"] },
  );
  expect(code).not.toBe(0);
  await mesh.routed();
  expectNoneLost(mesh, await runTurns(20, { callers: mesh.callers(2) }));
});

test("a release two stored formats away is refused before anything is changed", async () => {
  const redis = new Redis(mesh.redis.url);
  const pods = mesh.podsOf("stable").map(({ name }) => name);
  try {
    await redis.zadd(WRITTEN_SCHEMA_KEY, SCHEMA_VERSION + 2, "newest");
    const { code, stderr } = await mesh.upgrade({ image: { repository: "registry.test/parley", tag: "0.9.0" } });
    expect(code).not.toBe(0);
    expect(stderr).toContain("pre-upgrade");
    expect(mesh.podsOf("stable").map(({ name }) => name)).toEqual(pods);
  } finally {
    await redis.zadd(WRITTEN_SCHEMA_KEY, SCHEMA_VERSION, "newest");
    redis.disconnect();
  }
});

test("copies go to shadows, which write nothing and spend nothing", async () => {
  await upgraded(canary("0.6.0", { mirror: { percent: 100 }, shadow: { safe: true } }));
  await mesh.routed();
  const paidBefore = mesh.model.calls.length;
  const seen = await runTurns(50, { callers: mesh.callers(2) });
  expectNoneLost(mesh, seen);
  expect(new Set(seen.map(trackOf))).toEqual(new Set(["stable"]));
  const copies = async (): Promise<number> => {
    const pages = mesh.podsOf("canary").map(({ ip }) => fetch(`http://${ip}:9090/metrics`).then((page) => page.text()));
    const counts = (await Promise.all(pages)).map(
      (page) => /^parley_requests_total\{rpc="StreamChat",code="ok".*\} (\d+)$/m.exec(page)?.[1],
    );
    return counts.reduce((sum, count) => sum + Number(count ?? 0), 0);
  };
  await until("the shadows to have answered all copies", async () => (await copies()) === 50);
  expect(mesh.model.calls.length - paidBefore).toBe(50);
  await expectBillEqual(mesh);
});

describe("another manager has changed the weights", () => {
  const changeWeights = async (): Promise<void> => {
    const { spec } = await mesh.api.get(ROUTES);
    for (const route of spec.http)
      if (route.name === "turns")
        route.route = [
          { ...route.route[0], weight: 40 },
          { ...route.route[1], weight: 60 },
        ];
    await mesh.api.apply(
      {
        apiVersion: "networking.istio.io/v1",
        kind: "VirtualService",
        metadata: { name: "parley", namespace: "chat" },
        spec: { http: spec.http },
      },
      { manager: "somebody", force: true },
    );
  };
  const weights = async (): Promise<number[]> => {
    const { spec } = await mesh.api.get(ROUTES);
    return spec.http.find(({ name }: Manifest) => name === "turns").route.map(({ weight }: Manifest) => weight ?? 0);
  };

  test("owner helm: the upgrade stops and says who, and takes them back when it is told to", async () => {
    await upgraded(canary("0.6.0", { weight: 5 }));
    await changeWeights();
    const { code, stderr } = await mesh.upgrade(canary("0.6.0", { weight: 25 }));
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/conflict/i);
    expect(stderr).toContain("somebody");
    expect(await weights()).toEqual([40, 60]);
    await upgraded(canary("0.6.0", { weight: 25 }), ["--force-conflicts"]);
    expect(await weights()).toEqual([75, 25]);
  });

  test("owner flagger: the routes stay, and their weights are not touched", async () => {
    await changeWeights();
    await upgraded({ canary: { enabled: true, owner: "flagger" } });
    expect(await weights()).toEqual([40, 60]);
    expect((await mesh.helm("get", "manifest", "parley")).stdout).not.toContain("kind: VirtualService");
  });
});

test("every pod that left has ended by itself, in time, the service before its sidecar", () => expectLeftInOrder(mesh));
