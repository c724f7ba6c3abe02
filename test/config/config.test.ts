import { describe, expect, test } from "vitest";
import { loadConfig } from "../../src/config.ts";
import { ConfigError } from "../../src/platform/environment.ts";

/** Loads a configuration from an environment and the text of a parley.yaml. */
function load(env: Record<string, string>, yaml?: string) {
  const file = yaml === undefined ? {} : { CONFIG_FILE: "conf/parley.yaml" };
  return loadConfig(
    { ...file, ...env },
    {
      readFile(path) {
        if (yaml === undefined || path !== "conf/parley.yaml") throw new Error("ENOENT");
        return yaml;
      },
      packageVersion: "1.2.3",
    },
  );
}

function problemsOf(env: Record<string, string>, yaml?: string): readonly string[] {
  try {
    load(env, yaml);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe("the environment", () => {
  test("nothing set: the defaults", () => {
    expect(load({})).toMatchObject({
      host: "127.0.0.1",
      port: 8080,
      opsPort: 9090,
      redisUrl: undefined,
      maxTokens: 4_000,
      sessionTtlMs: 24 * 3_600_000,
      leaseMs: 10_000,
      drainMs: 120_000,
      rateLimit: { limit: 100, windowSeconds: 3_600 },
      maxStreamsPerConnection: 1_000,
      corsOrigins: [],
      version: "1.2.3",
      track: "stable",
      logLevel: "info",
      defaultTeam: "assistant",
    });
  });

  test("an empty variable counts as not set", () => {
    expect(load({ PORT: "", REDIS_URL: "", VERSION: "", CORS_ORIGINS: "" })).toEqual(load({}));
  });

  test("what it returns cannot be changed", () => {
    const config = load({});
    expect(Object.isFrozen(config)).toBe(true);
    expect(() => Object.assign(config, { port: 1 })).toThrow(TypeError);
  });

  test.each([
    ["PORT", "65536"],
    ["PORT", "-1"],
    ["OPS_PORT", "http"],
    ["MAX_TOKENS", "0"],
    ["MAX_TOKENS", "1.5"],
    ["MAX_ROUNDS", "1e3"],
    ["SESSION_TTL_HOURS", "-24"],
    ["RATE_LIMIT", "many"],
    ["RATE_WINDOW", "0"],
    ["LEASE_MS", "99"],
    ["DRAIN_MS", "3000000000"],
    ["MAX_STREAMS_PER_CONNECTION", "0"],
    ["REDIS_URL", "localhost:6379"],
    ["REDIS_URL", "redis://a:1,http://b:2"],
    ["REDIS_DURABILITY", "none"],
    ["OPENAI_BASE_URL", "api.openai.com"],
    ["OTLP_ENDPOINT", "ftp://collector"],
    ["CORS_ORIGINS", "*"],
    ["CORS_ORIGINS", "https://a.example/path"],
    ["AUTH_MODE", "basic"],
    ["ALLOW_UNAUTHENTICATED", "yes"],
    ["VERSION", "a b"],
    ["TRACK", "blue"],
    ["LOG_LEVEL", "loud"],
    ["CONFIG_FILE", "nowhere.yaml"],
    ["HOST", "0.0.0.0"],
    ["TLS_CERT", "cert.pem"],
    ["JWKS_URL", "https://issuer/jwks"],
    ["REST_DOOR", "yes"],
  ])("%s=%s is one problem, which names it", (name, value) => {
    const problems = problemsOf({ [name]: value });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(new RegExp(`^${name}: .+`));
  });

  test("every problem is told at once, those of the file too", () => {
    const problems = problemsOf({ PORT: "x", TRACK: "x", LEASE_MS: "x" }, "agents: 7\n");
    expect(problems.map((problem) => problem.split(": ")[0])).toEqual([
      "PORT",
      "LEASE_MS",
      "TRACK",
      "conf/parley.yaml:1",
    ]);
  });

  test("no problem shows a value that may be a secret", () => {
    const problems = problemsOf({ REDIS_URL: "http://user:hunter2@redis", OPENAI_BASE_URL: "ftp://hunter2" });
    expect(problems).toHaveLength(2);
    expect(problems.join()).not.toContain("hunter2");
  });

  test("callers are known as AUTH_MODE says, with all that it needs and nothing that it does not", () => {
    expect(load({}).auth).toEqual({ mode: "none" });
    const redis = { REDIS_URL: "redis://localhost" };
    expect(load({ ...redis, AUTH_MODE: "api_key", HOST: "0.0.0.0" }).auth).toEqual({ mode: "api_key" });
    const jwt = { JWT_ISSUER: "https://issuer/", JWT_AUDIENCE: "parley", JWKS_URL: "https://issuer/jwks" };
    const { auth } = load({ AUTH_MODE: "jwt", ...jwt });
    expect(auth).toEqual({
      mode: "jwt",
      issuer: "https://issuer/",
      audience: "parley",
      jwksUrl: "https://issuer/jwks",
    });
    const namesOf = (env: Record<string, string>) => problemsOf(env).map((problem) => problem.split(": ")[0]);
    expect(namesOf({ AUTH_MODE: "jwt" })).toEqual(["JWT_ISSUER", "JWT_AUDIENCE", "JWKS_URL"]);
    expect(namesOf({ AUTH_MODE: "api_key" })).toEqual(["AUTH_MODE"]);
    expect(namesOf({ ...redis, AUTH_MODE: "api_key", ...jwt })).toEqual(["JWT_ISSUER", "JWT_AUDIENCE", "JWKS_URL"]);
    expect(namesOf({ AUTH_MODE: "jwt", ...jwt, JWKS_URL: "issuer" })).toEqual(["JWKS_URL"]);
  });

  test("a certificate comes with its key, and both can be read", () => {
    expect(load({}).tls).toBeUndefined();
    const files = { TLS_CERT: "conf/parley.yaml", TLS_KEY: "conf/parley.yaml" };
    expect(load(files, "").tls).toEqual({ certPath: "conf/parley.yaml", keyPath: "conf/parley.yaml" });
    expect(problemsOf({ TLS_KEY: "key.pem" })).toEqual(["TLS_KEY: needs TLS_CERT too"]);
    expect(problemsOf({ TLS_CERT: "cert.pem", TLS_KEY: "key.pem" })).toEqual([
      "TLS_CERT: cannot read cert.pem",
      "TLS_KEY: cannot read key.pem",
    ]);
  });

  test("beyond loopback only where that is meant", () => {
    expect(load({ HOST: "0.0.0.0", ALLOW_UNAUTHENTICATED: "true" }).host).toBe("0.0.0.0");
    // A name may stand for any address.
    for (const HOST of ["::", "127.0.0.1.example.com", "127.example.com"]) {
      expect(() => load({ HOST })).toThrow("ALLOW_UNAUTHENTICATED=true");
    }
    for (const host of ["127.0.0.1", "127.1.2.3", "localhost", "::1"]) expect(load({ HOST: host }).host).toBe(host);
  });
});

describe("parley.yaml", () => {
  test.each([
    ["agents:\n  a:\n    temperature: 3\n", "conf/parley.yaml:3: agents.a.temperature:"],
    ["agents:\n  a: {}\nteams:\n  t:\n    agent: b\n", "conf/parley.yaml:5: teams.t.agent: there is no agent named b"],
    ["agents:\n  a:\n    tools: *nothing\n", "conf/parley.yaml:3: agents.a.tools: nothing is anchored as &nothing"],
    [
      "teams:\n  t:\n    kind: swarm\n    termination: &x\n      or: [*x]\n",
      "conf/parley.yaml:5: teams.t.termination.or.0: *x is part of itself",
    ],
    [
      `a: &a [${"x,".repeat(20)}]\nb: &b [${"*a,".repeat(20)}]\nc: [${"*b,".repeat(20)}]\n`,
      "conf/parley.yaml: its aliases (*name) come to too much",
    ],
    ["agents:\n  a: {}\nteams:\n  t:\n    agent: a\ndefault_team: u\n", "conf/parley.yaml:6: default_team:"],
    ["agents:\n  a:\n    sytem_message: x\n", "conf/parley.yaml:3: agents.a"],
    [
      "models:\n  m:\n    endpoints:\n      - api_key_env: NO_SUCH_KEY\n",
      "conf/parley.yaml:4: models.m.endpoints.0.api_key_env: NO_SUCH_KEY is not set",
    ],
    ["agents: [\n", "conf/parley.yaml:"],
    [
      "agents:\n  a:\n    handoffs: [b]\nteams: {t: {agent: a}}\n",
      "conf/parley.yaml:3: agents.a.handoffs.0: there is no agent named b",
    ],
    [
      "agents:\n  a:\n    handoffs: [a]\nteams: {t: {agent: a}}\n",
      "conf/parley.yaml:3: agents.a.handoffs.0: an agent cannot hand over to itself",
    ],
    [
      "agents:\n  a.b: {}\n  c:\n    handoffs: [a.b]\nteams: {t: {agent: c}}\n",
      "conf/parley.yaml:4: agents.c.handoffs.0: names that are",
    ],
    [
      "agents: {a: {handoffs: [b]}, b: {}}\nteams:\n  t:\n    kind: swarm\n    agents: [a]\n",
      "conf/parley.yaml:5: teams.t.agents.0: a hands over to b, who is no member",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    kind: selector\n    agents: [a, a]\n",
      "conf/parley.yaml:5: teams.t.agents.1: a is a member already",
    ],
    [
      "agents: {a: {}, selector: {}}\nteams:\n  t:\n    kind: selector\n    agents: [a, selector]\n",
      "conf/parley.yaml:5: teams.t.agents.1: selector is what",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    agent: a\n    allow_repeat_speaker: true\n",
      "conf/parley.yaml:5: teams.t.allow_repeat_speaker: is of teams of kind selector",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    agent: a\n    termination: {max_messages: 2}\n",
      "conf/parley.yaml:5: teams.t.termination: is of teams of several agents",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    kind: swarm\n    agents: [a]\n    termination:\n      or: [{source_match: [b]}]\n",
      "conf/parley.yaml:6: teams.t.termination: b is no member of the team",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    kind: swarm\n    agents: [a]\n    termination: {or: [{}]}\n",
      "conf/parley.yaml:6: teams.t.termination.or.0: must have exactly one condition",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    kind: round_robin\n    agents: [a, user_proxy]\n",
      "conf/parley.yaml:5: teams.t.agents.1: user_proxy is the user, who is asked where human_input is true",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    kind: swarm\n    human_input: true\n    agents: [user_proxy, a]\n",
      "conf/parley.yaml:6: teams.t.agents.0: user_proxy is the user, who has spoken already",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    human_input: true\n    agent: user_proxy\n",
      "conf/parley.yaml:5: teams.t.agent: user_proxy is the user, who does not answer alone",
    ],
    [
      "agents: {a: {}, user_proxy: {}}\nteams:\n  t:\n    kind: swarm\n    human_input: true\n    agents: [a, user_proxy]\n",
      "conf/parley.yaml:6: teams.t.agents.1: user_proxy is the user where human_input is true; rename the agent",
    ],
    [
      "agents: {a: {}}\nteams: {t: {agent: a}}\ndefault_team: constructor\n",
      'conf/parley.yaml:3: default_team: there is no team named "constructor"',
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    agent: a\n    guardrails:\n      input: [{name: g, pattern: '('}]\n",
      "conf/parley.yaml:6: teams.t.guardrails.input.0.pattern: is no regular expression of RE2's, which has no look-around and no back-references",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    agent: a\n    guardrails:\n      input: [{name: g, pattern: '(?!a)b'}]\n",
      "conf/parley.yaml:6: teams.t.guardrails.input.0.pattern: is no regular expression of RE2's, which has no look-around and no back-references",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    agent: a\n    guardrails:\n      input: [{name: g}]\n",
      "conf/parley.yaml:6: teams.t.guardrails.input.0: must have either max_characters or pattern",
    ],
    [
      "agents: {a: {}}\nteams:\n  t:\n    agent: a\n    guardrails:\n      output: [{name: g, max_characters: 1}, {name: g, pattern: x}]\n",
      "conf/parley.yaml:6: teams.t.guardrails.output: must each have a name of its own",
    ],
    [
      "budgets:\n  - scope: user\n    period: day\n    limit_tokens: 1\n",
      "conf/parley.yaml:1: budgets.0: must have an id",
    ],
    [
      "prices:\n  default:\n    input_usd_per_million: 0\n    output_usd_per_million: 1\n",
      "prices.default: must not be free",
    ],
  ])("%j has a problem that names file, line and field", (yaml, beginning) => {
    const problems = problemsOf({}, yaml);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(beginning);
  });

  test("agents without a model have MODEL, models without endpoints the environment's", () => {
    const config = load({ MODEL: "gpt-4o", OPENAI_BASE_URL: "http://127.0.0.1:1/v1", OPENAI_API_KEY: "key" }, "");
    expect(config.teams.get("assistant")?.agents[0].model).toBe("gpt-4o");
    expect(config.models.get("gpt-4o")?.endpoints).toEqual([
      {
        baseUrl: "http://127.0.0.1:1/v1",
        apiKey: "key",
        model: "gpt-4o",
        outputBound: "max_completion_tokens",
        idleTimeoutMs: 30_000,
      },
    ]);
  });

  test("a model call has 120 s, unless the team says otherwise", () => {
    expect(load({}, "").teams.get("assistant")?.callTimeoutMs).toBe(120_000);
    const yaml = "agents:\n  a: {}\nteams:\n  t:\n    agent: a\n    call_timeout_ms: 5000\n";
    expect(load({}, yaml).teams.get("t")?.callTimeoutMs).toBe(5_000);
  });
});
