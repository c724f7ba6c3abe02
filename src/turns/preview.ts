import type { Headroom } from "../../gen/parley/chat/v1/headroom_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { AccountStore } from "../accounts/account-store.ts";
import { createCallAccount } from "../accounts/call-account.ts";
import { EACH } from "../accounts/call-scopes.ts";
import { largestCostOfCalls } from "../accounts/model-price.ts";
import type { PriceTable } from "../accounts/price-table.ts";
import type { RateLimiter } from "../accounts/rate-limit.ts";
import { ANSWER_RESERVE_TOKENS } from "../engine/agent-answer.ts";
import { firstSelection, SELECTOR } from "../engine/selector-team.ts";
import { firstPrompt } from "../engine/single-team.ts";
import { firstOfSwarm } from "../engine/swarm-team.ts";
import type { TeamDefinition } from "../engine/team.ts";
import type { ToolBox } from "../engine/tool.ts";
import type { TurnInput } from "../engine/turn.ts";
import { Failure } from "../failure.ts";
import type { TurnRequest } from "./admission.ts";
import type { CurrentDefinitions } from "./definitions.ts";
import type { SessionStore } from "./ports.ts";

export interface PreviewPorts {
  readonly store: Pick<SessionStore, "getSession" | "readWindow">;
  readonly accounts: AccountStore;
  readonly prices: PriceTable;
  readonly rateLimiter: RateLimiter;
  readonly definitions: CurrentDefinitions;
  readonly release: { readonly version: string };
  /** Default and upper bound of a turn's tokens. */
  readonly maxTokens: number;
}

/** What would come of a request now. */
export interface TurnPreview {
  /** Why it would be refused; absent: it would be admitted. */
  readonly refusal?: Failure;
  /** Prompt tokens of the first model call; 0 where the message does not fit. */
  readonly promptTokens: number;
  /** The largest possible cost of the turn. */
  readonly maxCostMicroUsd: bigint;
  readonly headroom: readonly Headroom[];
}

/**
 * Says what would come of a request, by the same steps as its admission, and holds and spends nothing. SESSION_NOT_FOUND and
 * AGENT_TEAM_NOT_FOUND as there.
 */
export async function previewTurn(request: TurnRequest, ports: PreviewPorts): Promise<TurnPreview> {
  const { tenant, userId, sessionId, message } = request;
  const { teams, defaultTeam, tools } = ports.definitions.current;
  const team = teams.get(request.agentTeam || defaultTeam);
  if (team === undefined) throw new Failure("AGENT_TEAM_NOT_FOUND");
  const history = await windowOf(request, { team, ports });
  const limited = await ports.rateLimiter.peek(tenant, userId);

  const maxTokens = request.maxTokens || ports.maxTokens;
  const turn = { team, history, message, maxTokens };
  const first = firstCall(turn, tools);
  const calls = createCallAccount({ store: ports.accounts, prices: ports.prices });
  const { promptTokens, fits, ...call } = first;
  const { refusal, headroom, maxCostMicroUsd } = await calls.preview({
    tenant,
    userId,
    // A session that is yet to be made has spent nothing, and is bound as each one is.
    sessionId: sessionId || EACH,
    team: request.team,
    useCase: request.useCase,
    turnId: "",
    callId: crypto.randomUUID(),
    version: ports.release.version,
    promptTokens,
    ...call,
    callMs: team.callTimeoutMs,
  });
  const refused = limited ?? (fits ? refusal : new Failure("TURN_TOKEN_BUDGET"));
  return {
    promptTokens,
    maxCostMicroUsd: makesOneCall(team) ? maxCostMicroUsd : largestCostOf(turn, ports.prices),
    headroom,
    ...(refused === undefined ? {} : { refusal: refused }),
  };
}

type PreviewedTurn = Pick<TurnInput, "team" | "history" | "message" | "maxTokens">;

/** A turn's first model call, as it would be held: a selector's manager is asked before any agent is. */
function firstCall(turn: PreviewedTurn, tools: ToolBox) {
  const { team, maxTokens } = turn;
  const agent = team.kind === "swarm" ? firstOfSwarm(turn) : team.agents[0];
  const prompt = firstPrompt(turn, { tools }, agent);
  const selection = firstSelection(turn);
  if (selection !== undefined) {
    const { model, maxOutputTokens: maxCompletionTokens } = selection;
    const fits = selection.fits && prompt !== undefined;
    return { agent: SELECTOR, model, promptTokens: fits ? selection.promptTokens : 0, maxCompletionTokens, fits };
  }
  const promptTokens = prompt?.tokens ?? 0;
  const own = team.kind === "single" ? (agent.maxTokens ?? Number.POSITIVE_INFINITY) : Number.POSITIVE_INFINITY;
  const room = Math.min(maxTokens, agent.contextWindowTokens, own) - promptTokens;
  const maxCompletionTokens = Math.max(ANSWER_RESERVE_TOKENS, room);
  return { agent: agent.name, model: agent.model, promptTokens, maxCompletionTokens, fits: prompt !== undefined };
}

function makesOneCall({ kind, agents: [agent] }: TeamDefinition): boolean {
  return kind === "single" && agent.tools.length === 0 && agent.asksPerson !== true;
}

/** What all calls of a turn cost at most, whoever makes them. */
function largestCostOf({ team, maxTokens }: PreviewedTurn, prices: PriceTable): bigint {
  const agents = team.agents.filter(({ isPerson = false }) => !isPerson);
  const models = new Set(
    [...agents, ...(team.selector === undefined ? [] : [team.selector])].map(({ model }) => model),
  );
  const now = Date.now();
  const all = [...models].map((model) => prices.at(model, now));
  return largestCostOfCalls(all, { totalTokens: maxTokens, calls: team.maxRounds });
}

async function windowOf(
  { tenant, userId, sessionId }: TurnRequest,
  { team, ports }: { team: TeamDefinition; ports: PreviewPorts },
): Promise<readonly MessageRecord[]> {
  if (sessionId === "") return [];
  const session = await ports.store.getSession({ tenant, sessionId });
  if (session?.userId !== userId) throw new Failure("SESSION_NOT_FOUND");
  return (await ports.store.readWindow({ tenant, sessionId }, team.historyMessages)) ?? [];
}
