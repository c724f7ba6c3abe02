import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { stringify } from "yaml";
import { parseParleyYaml } from "../../src/parley-yaml.ts";
import { STANDARD_TOOLS } from "../../src/tools/standard-tools.ts";
import { unknownNames } from "../alerts/query-check.ts";
import { DOCUMENTED_COMMANDS } from "../mesh/documented-commands.ts";
import { grpcurlPath } from "../support/grpcurl.ts";
import { openAiPythonPath } from "../support/openai-python.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../support/service-process.ts";
import { PROJECT, readSnippets, type Snippet } from "./snippets.ts";

// Every block of the documentation that somebody could run is run here, or by the test that is named here, or it stands here
// with the reason why no test can.

/** Languages of blocks that do something, or configure something. */
const RUNNABLE = /^(sh|bash|ts|js|go|python|java|rust|json|yaml|promql)$/;

/** Files of tests that run or check the blocks of a document themselves, all of those in the languages, and what they call it. */
const ELSEWHERE: readonly { documents: RegExp; languages: readonly string[]; by: string; called: string }[] = [
  { documents: /^README\.md$/, languages: ["sh"], by: "test/docs/readme.test.ts", called: "README.md" },
  {
    documents: /^examples\/(?!teams\/)[^/]+\/README\.md$/,
    languages: ["sh"],
    by: "test/clients/example.ts",
    called: "README.md",
  },
  // How the service is started that the commands of the folders need.
  { documents: /^examples\/README\.md$/, languages: ["sh"], by: "test/clients/example.ts", called: "README.md" },
  {
    documents: /^examples\/teams\/[^/]+\/README\.md$/,
    languages: ["sh"],
    by: "test/examples/teams.test.ts",
    called: "README.md",
  },
  {
    documents: /^docs\/clients\.md$/,
    languages: ["ts", "sh"],
    by: "test/client/package.test.ts",
    called: "docs/clients.md",
  },
  {
    documents: /^docs\/testing\.md$/,
    languages: ["js", "yaml", "sh"],
    by: "test/package/testing.test.ts",
    called: "docs/testing.md",
  },
  {
    documents: /^docs\/config\.md$/,
    languages: ["yaml"],
    by: "test/docs/config-docs.test.ts",
    called: "docs/config.md",
  },
  { documents: /^docs\/runbooks\//, languages: ["sh"], by: "test/alerts/runbooks.test.ts", called: "docs/runbooks" },
  { documents: /^docs\/operations\//, languages: ["yaml"], by: "test/chart/docs.test.ts", called: "docs/operations" },
];

interface NotRun {
  readonly document: string;
  /** How the block begins. */
  readonly begins: string;
  readonly reason: string;
}

const NO_KUBELET = "needs a kubelet that serves `exec` and `logs`, which the mesh test's nodes have not";
const NO_FLAGGER = "needs Flagger; its objects are checked against its own schemas by test/gate";

/** What no test runs as it stands. */
const NOT_RUN: readonly NotRun[] = [
  {
    document: "docs/edge.md",
    begins: "npx wrangler secret put",
    reason: "needs an account; test/edge/deploy-file.test.ts runs `wrangler deploy` up to the upload",
  },
  {
    document: "docs/costs.md",
    begins: "make draw-dashboards",
    reason: "test/dashboards asks Prometheus for every panel",
  },
  { document: "docs/alerts.md", begins: "export PROMETHEUS", reason: "names of a reader's own cluster" },
  { document: "docs/operations/flagger.md", begins: "helm upgrade …", reason: NO_FLAGGER },
  {
    document: "docs/operations/install.md",
    begins: "kubectl -n chat exec deploy/parley-stable -c parley -- node src/keys-cli.ts make --user alice",
    reason: NO_KUBELET,
  },
  {
    document: "docs/operations/install.md",
    begins: "kubectl -n chat exec deploy/parley-stable -c parley -- node src/keys-cli.ts make --user helm-test",
    reason: NO_KUBELET,
  },
  {
    document: "docs/operations/install.md",
    begins: "kubectl -n chat exec deploy/parley-stable -c parley -- \\\n  node -e",
    reason: NO_KUBELET,
  },
];

interface Run {
  readonly document: string;
  readonly begins: string;
  /** What it prints, among other things. */
  readonly prints: RegExp;
}

/** What is run here, against `make run`'s service, in the order of the list. */
const RUN: readonly Run[] = [
  { document: "docs/concepts.md", begins: "grpcurl", prints: /"turnCompleted"/ },
  {
    document: "docs/turns.md",
    begins: 'grpcurl -plaintext -d \'{"turn_id"',
    prints: /"finishReason": "FINISH_REASON_STOP"/,
  },
  { document: "docs/turns.md", begins: 'grpcurl -plaintext -d \'{"session_id"', prints: /"toolCallCompleted"/ },
  {
    document: "docs/from-autogen.md",
    begins: "curl",
    prints: /"response":"You said: “hello”[\s\S]*"deleted"[\s\S]*"healthy"/,
  },
  { document: "docs/costs.md", begins: "grpcurl", prints: /^\{/ },
  { document: "docs/costs.md", begins: "curl", prints: /cost_micro_usd/ },
  { document: "docs/identity.md", begins: "REDIS_URL", prints: /parley_\w+/ },
  { document: "docs/openai.md", begins: "from openai", prints: /^You said: “hello”/ },
  { document: "docs/alerts.md", begins: "npm run monitoring", prints: /SUCCESS: \d+ rules found[\s\S]*SUCCESS/ },
  { document: "docs/edge.md", begins: "npm run build:edge", prints: /^/ },
  { document: "docs/operations/redis.md", begins: "redis-cli", prints: /Transfer finished with success/ },
];

const snippets = readSnippets().filter(({ language }) => RUNNABLE.test(language));
const nameOf = ({ document, line }: Snippet): string => `${document}:${line}`;
const isAt = (snippet: Snippet, { document, begins }: { document: string; begins: string }): boolean =>
  snippet.document === document && snippet.code.startsWith(begins);

test("every block that could be run is run or checked once, or has a reason why not", () => {
  expect(snippets.length).toBeGreaterThan(100);
  const astray = snippets
    .map((snippet) => ({
      at: nameOf(snippet),
      seenBy: [
        ...ELSEWHERE.filter(
          ({ documents, languages }) => documents.test(snippet.document) && languages.includes(snippet.language),
        ).map(({ by }) => by),
        ...RUN.filter((run) => isAt(snippet, run)).map(() => "run here"),
        ...DOCUMENTED_COMMANDS.filter((one) => isAt(snippet, one)).map(() => "test/mesh/docs.test.ts"),
        ...NOT_RUN.filter((one) => isAt(snippet, one)).map(({ reason }) => reason),
        ...(snippet.language === "promql" ? ["asked here"] : []),
        ...(snippet.document === "docs/teams.md" && snippet.language === "yaml" ? ["loaded here"] : []),
      ],
    }))
    .filter(({ seenBy }) => seenBy.length !== 1);
  expect(astray).toEqual([]);
});

test("whatever is named here is there", () => {
  for (const { documents, languages, by, called } of ELSEWHERE) {
    expect(readFileSync(join(PROJECT, by), "utf8"), by).toContain(called);
    for (const language of languages) {
      const seen = snippets.filter((one) => documents.test(one.document) && one.language === language);
      expect(seen.length, `${documents} ${language}`).toBeGreaterThan(0);
    }
  }
  for (const one of [...RUN, ...DOCUMENTED_COMMANDS, ...NOT_RUN]) {
    expect(snippets.filter((snippet) => isAt(snippet, one)).map(nameOf), `${one.document}: ${one.begins}`).toHaveLength(
      1,
    );
  }
});

let redis: RedisServer;
let parley: ServiceProcess;
let folder: string;
beforeAll(async () => {
  redis = await startRedisServer();
  parley = await startServiceProcess({ entry: "standalone/main.ts", env: { REDIS_URL: redis.url } });
  folder = await mkdtemp(join(tmpdir(), "parley-docs-"));
});
afterAll(async () => {
  await parley?.stop();
  await redis?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A service's own address in place of the one in the documentation, and what a reader puts for what is left open. */
function filledIn(code: string, url: string, open: Readonly<Record<string, string>> = {}): string {
  const usage = /Usage: +http:\/\/(\S+),/.exec(parley.output())?.[1] ?? "";
  let text = code
    .replaceAll("localhost:8080", new URL(url).host)
    .replaceAll("localhost:8081", usage)
    .replaceAll("redis://localhost:6379", redis.url)
    .replaceAll("/tmp/parley-monitoring", join(folder, "monitoring"))
    .replaceAll("--rdb backup", `--rdb ${folder}/backup`)
    .replaceAll("> usage.csv", `| tee ${join(folder, "usage.csv")}`);
  for (const [field, value] of Object.entries(open)) text = text.replaceAll(`"${field}":"…"`, `"${field}":"${value}"`);
  expect(text).not.toContain("…");
  return text;
}

async function runSnippet({ language, code }: Snippet): Promise<string> {
  const env = {
    ...process.env,
    PATH: [dirname(await grpcurlPath()), join(PROJECT, "node_modules/.bin"), process.env.PATH].join(delimiter),
    PYTHONPATH: language === "python" ? await openAiPythonPath() : "",
    // With AUTH_MODE=none any will do.
    KEY: "none",
    REDIS_URL: redis.url,
  };
  const [command, ...args] = language === "python" ? ["python3", "-c"] : ["bash", "-euo", "pipefail", "-c"];
  const { stdout, stderr } = await promisify(execFile)(command ?? "", [...args, code], { cwd: PROJECT, env });
  return language === "python" ? stdout : stdout + stderr;
}

const call = async (url: string, method: string, request: object): Promise<string> => {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ userId: "u1", ...request });
  return (await fetch(`${url}/parley.chat.v1.ChatService/${method}`, { method: "POST", headers, body })).text();
};

/** What the text before a block has left open: a turn that was read up to event 7, a question that waits. */
async function before(snippet: Snippet): Promise<{ url: string; open: Record<string, string> }> {
  if (snippet.code.includes('"turn_id":"…"')) {
    const said = JSON.parse(await call(parley.url, "Chat", { message: "one two three four five six seven" }));
    return { url: parley.url, open: { turn_id: said.turnId } };
  }
  if (snippet.code.includes('"tool_call_id":"…"')) {
    const asking = await startServiceProcess({ entry: "standalone/main.ts", env: {}, args: ["approval"] });
    onTestFinished(() => asking.stop());
    const said = JSON.parse(
      await call(asking.url, "Chat", { message: "Please pay back order A-17: the teapot is broken." }),
    );
    const events = await promisify(execFile)(await grpcurlPath(), [
      "-plaintext",
      "-d",
      JSON.stringify({ turn_id: said.turnId }),
      new URL(asking.url).host,
      "parley.chat.v1.ChatService/ResumeTurn",
    ]);
    const [, toolCallId = ""] = /"approvalRequired": \{[^}]*"toolCallId": "([^"]+)"/.exec(events.stdout) ?? [];
    return { url: asking.url, open: { session_id: said.sessionId, tool_call_id: toolCallId } };
  }
  return { url: parley.url, open: {} };
}

describe("run", () => {
  test.each(RUN)("$document: $begins", async ({ prints, ...where }) => {
    const snippet = snippets.find((one) => isAt(one, where)) ?? expect.unreachable();
    const { url, open } = await before(snippet);
    const printed = await runSnippet({ ...snippet, code: filledIn(snippet.code, url, open) });
    expect(printed).toMatch(prints);
  });
});

test("the queries are ones that Prometheus understands, for metrics and labels that exist", async () => {
  const queries = snippets.filter(({ language }) => language === "promql");
  expect(queries.length).toBeGreaterThan(5);
  for (const query of queries) expect(unknownNames(query.code), nameOf(query)).toEqual([]);
  const file = join(folder, "queries.yml");
  const rules = queries.map(({ code }, index) => ({ record: `query:${index}`, expr: code }));
  await writeFile(file, stringify({ groups: [{ name: "docs", rules }] }));
  await expect(promisify(execFile)("promtool", ["check", "rules", file])).resolves.toBeDefined();
});

test.each(snippets.filter(({ document, language }) => document === "docs/teams.md" && language === "yaml"))(
  "$document:$line is read as parley.yaml",
  ({ code }) => {
    const defaults = { model: "gpt-4o", maxRounds: 20, baseUrl: "https://api.openai.com/v1", apiKey: "key" };
    const tools = new Set(STANDARD_TOOLS.keys());
    expect(parseParleyYaml(code, { fileName: "parley.yaml", defaults, tools, env: {} }).problems).toEqual([]);
  },
);
