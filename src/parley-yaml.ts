import { type Document, isMap, isPair, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from "yaml";
import * as z from "zod";
import type { ConfiguredBudget } from "./accounts/budgets.ts";
import { budgetsYamlSchema, readBudgets } from "./accounts/budgets-yaml.ts";
import { type ConfiguredPrices, pricesYamlSchema, readPrices } from "./accounts/prices-yaml.ts";
import { guardrailsYamlSchema, readGuardrails } from "./engine/guardrails-yaml.ts";
import { PERSON, personBeside } from "./engine/person.ts";
import { SELECTOR } from "./engine/selector-team.ts";
import type { AgentDefinition, TeamDefinition } from "./engine/team.ts";
import { readTermination, strangersIn, terminationYamlSchema } from "./engine/termination-yaml.ts";
import {
  type McpServerDefinition,
  mcpServersYamlSchema,
  needsApproval,
  problemOfToolName,
  readMcpServers,
} from "./tools/mcp-servers-yaml.ts";

/** Where calls to a model go: its endpoints in order; a later one only when an earlier one fails before its first token. */
export interface ModelDefinition {
  readonly name: string;
  readonly contextWindowTokens: number;
  readonly endpoints: readonly [ModelEndpointDefinition, ...ModelEndpointDefinition[]];
}

export interface ModelEndpointDefinition {
  readonly baseUrl: string;
  readonly apiKey: string | undefined;
  /** Name of the model at this endpoint. */
  readonly model: string;
  /** The request's field that bounds the output. */
  readonly outputBound: "max_completion_tokens" | "max_tokens";
  /** A stream that is silent for this many milliseconds has stalled. */
  readonly idleTimeoutMs: number;
}

/** When a breaker opens, and for how long. */
export interface Breaker {
  /** Failures are counted over this many milliseconds. */
  readonly windowMs: number;
  /** Calls in the window below which a breaker stays closed. */
  readonly minCalls: number;
  /** It opens at this share of failures or more, in percent. */
  readonly errorThresholdPercent: number;
  /** Milliseconds until an open breaker lets one call try. */
  readonly resetMs: number;
}

export interface ParleyYaml {
  readonly models: ReadonlyMap<string, ModelDefinition>;
  readonly breaker: Breaker;
  readonly teams: ReadonlyMap<string, TeamDefinition>;
  readonly defaultTeam: string;
  readonly mcpServers: ReadonlyMap<string, McpServerDefinition>;
  readonly prices: ConfiguredPrices;
  readonly budgets: readonly ConfiguredBudget[];
}

/** A call is given up after this many milliseconds (DESIGN §5). */
const CALL_TIMEOUT_MS = 120_000;

/**
 * A stream that is silent for this many milliseconds has stalled: models that think before they speak send chunks
 * meanwhile, and half a minute is what a person waits for.
 */
const IDLE_TIMEOUT_MS = 30_000;

/** Messages of each agent in a turn (DESIGN §5; AutoGen's name). */
const MAX_CONSECUTIVE_AUTO_REPLY = 10;

/** Calls of a selector until its choice is valid (AutoGen's default). */
const MAX_SELECTOR_ATTEMPTS = 3;

/** What a selector is asked, with AutoGen's places to fill in. */
const SELECTOR_PROMPT = `These take part in a conversation:
{roles}

This was said so far:
{history}

Who should speak next? Answer with exactly one name of {participants}, and nothing else.`;

/** A tool's name has at most 64 characters (OpenAI's API): so long a name leaves room for what a hand-off puts before it. */
const HANDOFF_NAME = /^[A-Za-z0-9_-]{1,52}$/;

const name = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,64}$/, { error: () => "must be 1 to 64 characters of [A-Za-z0-9._-]" });

/** The one place that says what parley.yaml may have. An empty file is the assistant of AutoGen's quickstart. */
export const parleyYamlSchema = z.strictObject({
  agents: z
    .record(
      name,
      z.strictObject({
        system_message: z.string().default("You are a helpful AI assistant. Answer clearly and to the point."),
        model: z.string().optional(),
        temperature: z.number().min(0).max(2).default(0.3),
        max_tokens: z.int().min(1).optional(),
        tools: z.array(z.string()).default([]),
        description: z.string().max(2_000).default(""),
        handoffs: z.array(z.string()).default([]),
      }),
    )
    .default({
      assistant: {
        system_message: "You are a helpful AI assistant. Answer clearly and to the point.",
        temperature: 0.3,
        tools: [],
        description: "",
        handoffs: [],
      },
    }),
  teams: z
    .record(
      name,
      z.strictObject({
        kind: z
          .enum(["single", "round_robin", "selector", "swarm"], {
            error: () => "must be single, round_robin, selector or swarm",
          })
          .default("single"),
        agent: z.string().optional(),
        agents: z.array(z.string()).min(1).optional(),
        max_consecutive_auto_reply: z.int().min(1).max(1_000).default(MAX_CONSECUTIVE_AUTO_REPLY),
        max_rounds: z.int().min(1).max(1_000).optional(),
        termination_text: z
          .string()
          .regex(/^\S*$/, { error: () => "must have no white space" })
          .default("TERMINATE"),
        history_messages: z.int().min(0).max(1_000).default(100),
        call_timeout_ms: z.int().min(100).default(CALL_TIMEOUT_MS),
        human_input: z.boolean().optional(),
        guardrails: guardrailsYamlSchema.optional(),
        termination: terminationYamlSchema.optional(),
        selector_model: z.string().optional(),
        selector_prompt: z.string().min(1).max(20_000).optional(),
        max_selector_attempts: z.int().min(1).max(10).optional(),
        allow_repeat_speaker: z.boolean().optional(),
      }),
    )
    .default({
      assistant: {
        kind: "single",
        agent: "assistant",
        max_consecutive_auto_reply: MAX_CONSECUTIVE_AUTO_REPLY,
        termination_text: "TERMINATE",
        history_messages: 100,
        call_timeout_ms: CALL_TIMEOUT_MS,
      },
    }),
  default_team: z.string().optional(),
  models: z
    .record(
      z.string(),
      z.strictObject({
        context_window_tokens: z.int().min(1_000).optional(),
        endpoints: z
          .array(
            z.strictObject({
              base_url: z.url({ protocol: /^https?$/ }).optional(),
              api_key_env: z.string().optional(),
              model: z.string().optional(),
              output_bound: z.enum(["max_completion_tokens", "max_tokens"]).default("max_completion_tokens"),
              idle_timeout_ms: z.int().min(100).default(IDLE_TIMEOUT_MS),
            }),
          )
          .min(1),
      }),
    )
    .default({}),
  breaker: z
    .strictObject({
      window_ms: z.int().min(1_000).default(10_000),
      min_calls: z.int().min(1).default(10),
      error_threshold_percent: z.int().min(1).max(100).default(50),
      reset_ms: z.int().min(100).default(10_000),
    })
    .default({ window_ms: 10_000, min_calls: 10, error_threshold_percent: 50, reset_ms: 10_000 }),
  mcp_servers: mcpServersYamlSchema,
  prices: pricesYamlSchema,
  budgets: budgetsYamlSchema,
});

/**
 * Context windows in tokens where the file gives none (platform.openai.com/docs/models, read 2026-08). The smallest of
 * them stands for a model that is not known.
 */
const contextWindows: readonly (readonly [RegExp, number])[] = [
  [/^gpt-4\.1/, 1_047_576],
  [/^gpt-5/, 400_000],
  [/^o[134]/, 200_000],
  [/^(gpt-4o|gpt-4-turbo)/, 128_000],
  [/^gpt-3\.5/, 16_385],
];
const SMALLEST_CONTEXT_WINDOW = 8_192;

/** Reads parley.yaml. Problems name file, line and field. */
export function parseParleyYaml(
  text: string,
  {
    fileName,
    defaults,
    tools,
    env,
  }: {
    fileName: string;
    defaults: { model: string; maxRounds: number; baseUrl: string; apiKey: string | undefined };
    /** Names of the tools that are part of Parley. */
    tools: ReadonlySet<string>;
    /** Where `api_key_env` is looked up. */
    env: Readonly<Record<string, string | undefined>>;
  },
): { value?: ParleyYaml; problems: string[] } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const at = (path: readonly PropertyKey[]): string => {
    const line = lineOf(document.contents, { path, lines });
    return `${fileName}${line === undefined ? "" : `:${line}`}: ${path.map(String).join(".")}`;
  };
  if (document.errors.length > 0) {
    return { problems: document.errors.map((error) => `${fileName}:${error.linePos?.[0].line ?? 1}: ${error.code}`) };
  }
  const aliases = aliasProblems(document);
  if (aliases.length > 0) return { problems: aliases.map(({ path, problem }) => `${at(path)}: ${problem}`) };
  let content: unknown;
  try {
    content = document.toJS();
  } catch {
    // So few lines could fill the memory.
    return { problems: [`${fileName}: its aliases (*name) come to too much`] };
  }
  const parsed = parleyYamlSchema.safeParse(content ?? {});
  if (!parsed.success) {
    const problems = parsed.error.issues.flatMap((issue) =>
      issue.code === "unrecognized_keys"
        ? issue.keys.map((key) => `${at([...issue.path, key])}: there is no such field`)
        : [`${at(issue.path)}: ${issue.message}`],
    );
    return { problems };
  }

  const file = parsed.data;
  const problems: string[] = [];
  const agents = new Map<string, AgentDefinition>();
  const models = new Map<string, ModelDefinition>();
  for (const [modelName, model] of Object.entries(file.models)) {
    const endpoints = model.endpoints.map((endpoint, index) => {
      const { api_key_env: variable } = endpoint;
      if (variable !== undefined && env[variable] === undefined) {
        problems.push(`${at(["models", modelName, "endpoints", index, "api_key_env"])}: ${variable} is not set`);
      }
      return {
        baseUrl: endpoint.base_url ?? defaults.baseUrl,
        apiKey: variable === undefined ? defaults.apiKey : env[variable],
        model: endpoint.model ?? modelName,
        outputBound: endpoint.output_bound,
        idleTimeoutMs: endpoint.idle_timeout_ms,
      };
    });
    models.set(modelName, {
      name: modelName,
      contextWindowTokens: model.context_window_tokens ?? contextWindowOf(modelName),
      endpoints: endpoints as [ModelEndpointDefinition, ...ModelEndpointDefinition[]],
    });
  }
  const mcpServers = readMcpServers(file.mcp_servers, {
    env,
    onProblem: (path, problem) => problems.push(`${at(path)}: ${problem}`),
  });
  for (const [agentName, agent] of Object.entries(file.agents)) {
    const model = agent.model ?? defaults.model;
    if (!models.has(model)) models.set(model, defaultModel(model, defaults));
    for (const [index, tool] of agent.tools.entries()) {
      const problem = tools.has(tool) ? undefined : problemOfToolName(tool, mcpServers);
      if (problem !== undefined) problems.push(`${at(["agents", agentName, "tools", index])}: ${problem}`);
    }
    agents.set(agentName, {
      name: agentName,
      systemMessage: agent.system_message,
      model,
      temperature: agent.temperature,
      contextWindowTokens: models.get(model)?.contextWindowTokens ?? SMALLEST_CONTEXT_WINDOW,
      ...(agent.max_tokens === undefined ? {} : { maxTokens: agent.max_tokens }),
      tools: agent.tools,
      description: agent.description,
      approvals: agent.tools.filter((tool) => needsApproval(tool, mcpServers)),
    });
  }
  const handoffs = new Map(Object.entries(file.agents).map(([agentName, agent]) => [agentName, agent.handoffs]));
  for (const [agentName, names] of handoffs) {
    for (const [index, to] of names.entries()) {
      const problem = handoffProblem(to, { from: agentName, agents });
      if (problem !== undefined) problems.push(`${at(["agents", agentName, "handoffs", index])}: ${problem}`);
    }
  }
  const teams = new Map<string, TeamDefinition>();
  for (const [teamName, team] of Object.entries(file.teams)) {
    const members = membersOf(team, { agents, handoffs });
    if ("problems" in members) {
      problems.push(
        ...members.problems.map(({ field, problem }) => `${at(["teams", teamName, ...field])}: ${problem}`),
      );
      continue;
    }
    const selectorModel = team.selector_model ?? defaults.model;
    if (team.kind === "selector" && !models.has(selectorModel))
      models.set(selectorModel, defaultModel(selectorModel, defaults));
    teams.set(teamName, {
      name: teamName,
      kind: team.kind,
      agents: members.agents,
      maxRounds: team.max_rounds ?? defaults.maxRounds,
      maxConsecutiveAutoReply: team.max_consecutive_auto_reply,
      terminationText: team.termination_text,
      callTimeoutMs: team.call_timeout_ms,
      historyMessages: team.history_messages,
      ...(team.guardrails === undefined ? {} : { guardrails: readGuardrails(team.guardrails) }),
      ...(team.termination === undefined ? {} : { termination: readTermination(team.termination) }),
      ...(team.kind !== "selector"
        ? {}
        : {
            selector: {
              model: selectorModel,
              contextWindowTokens: models.get(selectorModel)?.contextWindowTokens ?? SMALLEST_CONTEXT_WINDOW,
              prompt: team.selector_prompt ?? SELECTOR_PROMPT,
              maxAttempts: team.max_selector_attempts ?? MAX_SELECTOR_ATTEMPTS,
              allowRepeatSpeaker: team.allow_repeat_speaker ?? false,
            },
          }),
    });
  }
  const defaultTeam = file.default_team ?? Object.keys(file.teams)[0] ?? "";
  if (!Object.hasOwn(file.teams, defaultTeam))
    problems.push(`${at(["default_team"])}: there is no team named ${JSON.stringify(defaultTeam)}`);
  if (problems.length > 0) return { problems };
  const { window_ms, min_calls, error_threshold_percent, reset_ms } = file.breaker;
  const breaker = {
    windowMs: window_ms,
    minCalls: min_calls,
    errorThresholdPercent: error_threshold_percent,
    resetMs: reset_ms,
  };
  const prices = readPrices(file.prices);
  const budgets = readBudgets(file.budgets);
  return { value: { models, breaker, teams, defaultTeam, mcpServers, prices, budgets }, problems };
}

type TeamYaml = z.infer<typeof parleyYamlSchema>["teams"][string];
type Members =
  | { readonly agents: TeamDefinition["agents"] }
  | { readonly problems: readonly { readonly field: readonly PropertyKey[]; readonly problem: string }[] };

/** A team's agents: one by `agent`, or for kinds of several by `agents`; in a swarm with whom they may hand over to. */
function membersOf(
  team: TeamYaml,
  {
    agents,
    handoffs,
  }: { agents: ReadonlyMap<string, AgentDefinition>; handoffs: ReadonlyMap<string, readonly string[]> },
): Members {
  const single = team.kind === "single";
  if (single && team.agents !== undefined) {
    return { problems: [{ field: ["agents"], problem: "a team of kind single has one agent, named by agent" }] };
  }
  if (!single && team.agent !== undefined) {
    return { problems: [{ field: ["agent"], problem: `a team of kind ${team.kind} names its agents by agents` }] };
  }
  const names = single ? [team.agent ?? ""] : (team.agents ?? []);
  if (names.length === 0 || names[0] === "") {
    return { problems: [{ field: [single ? "agent" : "agents"], problem: "must be given" }] };
  }
  const problems = names.flatMap((agentName, index) => {
    const field = single ? ["agent"] : ["agents", index];
    const personProblem =
      agentName === PERSON ? personProblemOf(team, { index, isAgent: agents.has(PERSON) }) : undefined;
    if (personProblem !== undefined) return [{ field, problem: personProblem }];
    if (!agents.has(agentName) && agentName !== PERSON)
      return [{ field, problem: `there is no agent named ${agentName}` }];
    if (team.kind === "selector" && agentName === SELECTOR)
      return [{ field, problem: `${SELECTOR} is what the manager's own calls are recorded for; rename the agent` }];
    // Who speaks is told by name where the way of the conversation depends on it.
    if ((team.kind === "selector" || team.kind === "swarm") && names.indexOf(agentName) !== index)
      return [{ field, problem: `${agentName} is a member already` }];
    return [];
  });
  if (team.kind !== "selector") {
    const ofSelectors = ["selector_model", "selector_prompt", "max_selector_attempts", "allow_repeat_speaker"] as const;
    for (const field of ofSelectors)
      if (team[field] !== undefined) problems.push({ field: [field], problem: "is of teams of kind selector" });
  }
  if (single && team.termination !== undefined) {
    problems.push({
      field: ["termination"],
      problem: "is of teams of several agents: a single agent's answer ends the turn",
    });
  } else if (team.termination !== undefined) {
    const [stranger] = strangersIn(readTermination(team.termination), names);
    if (stranger !== undefined)
      problems.push({ field: ["termination"], problem: `${stranger} is no member of the team` });
  }
  if (team.kind === "swarm") {
    for (const [index, agentName] of names.entries()) {
      const outside = handoffs.get(agentName)?.find((to) => !names.includes(to));
      if (outside !== undefined) {
        const problem = `${agentName} hands over to ${outside}, who is no member`;
        problems.push({ field: ["agents", index], problem });
      }
    }
  }
  if (problems.length > 0) return { problems };
  const [first] = names.flatMap((agentName) => agents.get(agentName) ?? []);
  const members = names.flatMap((agentName) => {
    const agent = agents.get(agentName) ?? (first && personBeside(first));
    if (agent === undefined) return [];
    if (agent.isPerson) return [agent];
    const asking = team.human_input === true ? { ...agent, asksPerson: true } : agent;
    if (team.kind !== "swarm") return [asking];
    const targets = (handoffs.get(agentName) ?? []).map((to) => ({
      to,
      description: to === PERSON ? "The user." : (agents.get(to)?.description ?? ""),
    }));
    return [{ ...asking, handoffs: targets }];
  });
  return { agents: members as unknown as TeamDefinition["agents"] };
}

/** Why a team cannot have the person as a member, if it cannot. */
function personProblemOf(
  { kind, human_input: humanInput = false }: TeamYaml,
  { index, isAgent }: { index: number; isAgent: boolean },
): string | undefined {
  if (isAgent) return humanInput ? `${PERSON} is the user where human_input is true; rename the agent` : undefined;
  if (!humanInput) return `${PERSON} is the user, who is asked where human_input is true`;
  if (kind === "single") return `${PERSON} is the user, who does not answer alone`;
  return index === 0 ? `${PERSON} is the user, who has spoken already: another member is the first` : undefined;
}

function handoffProblem(
  to: string,
  { from, agents }: { from: string; agents: ReadonlyMap<string, AgentDefinition> },
): string | undefined {
  if (!agents.has(to) && to !== PERSON) return `there is no agent named ${to}`;
  if (to === from) return "an agent cannot hand over to itself";
  return HANDOFF_NAME.test(to) ? undefined : "names that are handed over to have 1 to 52 characters of [A-Za-z0-9_-]";
}

function defaultModel(
  model: string,
  { baseUrl, apiKey }: { baseUrl: string; apiKey: string | undefined },
): ModelDefinition {
  const outputBound = "max_completion_tokens";
  const endpoint = { baseUrl, apiKey, model, outputBound, idleTimeoutMs: IDLE_TIMEOUT_MS } as const;
  return { name: model, contextWindowTokens: contextWindowOf(model), endpoints: [endpoint] };
}

function contextWindowOf(model: string): number {
  return contextWindows.find(([pattern]) => pattern.test(model))?.[1] ?? SMALLEST_CONTEXT_WINDOW;
}

/** What is wrong with a document's aliases: one may stand for nothing, or for what it is part of. */
function aliasProblems(document: Document): { path: PropertyKey[]; problem: string }[] {
  const problems: { path: PropertyKey[]; problem: string }[] = [];
  visit(document, {
    Alias(_, alias, around) {
      const anchored = alias.resolve(document);
      if (anchored !== undefined && !around.includes(anchored)) return;
      const problem =
        anchored === undefined ? `nothing is anchored as &${alias.source}` : `*${alias.source} is part of itself`;
      problems.push({ path: fieldAt([...around, alias]), problem });
    },
  });
  return problems;
}

/** The field that a chain of nodes, from the document down, leads to. */
function fieldAt(chain: readonly (Document | Node | object)[]): PropertyKey[] {
  return chain.flatMap((node, index): PropertyKey[] => {
    if (isPair(node)) return isScalar(node.key) ? [String(node.key.value)] : [];
    return isSeq(node) ? [node.items.indexOf(chain[index + 1])] : [];
  });
}

/** The line of a value, or of the nearest thing around it that the file has. */
function lineOf(
  node: unknown,
  { path, lines }: { path: readonly PropertyKey[]; lines: LineCounter },
): number | undefined {
  let found = node;
  let offset: number | undefined;
  for (const key of path) {
    if (!isMap(found)) {
      const items = (found as { items?: unknown[] } | null)?.items;
      found = typeof key === "number" ? items?.[key] : undefined;
      continue;
    }
    const pair = found.items.find((item) => isScalar(item.key) && item.key.value === key);
    if (pair === undefined) break;
    offset = isScalar(pair.key) ? pair.key.range?.[0] : offset;
    found = pair.value;
  }
  return offset === undefined ? undefined : lines.linePos(offset).line;
}
