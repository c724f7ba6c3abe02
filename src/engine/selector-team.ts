import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import { ANSWER_RESERVE_TOKENS, callModel, endOf, type Rounds } from "./agent-answer.ts";
import { type NextSpeaker, runGroupTeam, type Said } from "./group-team.ts";
import type { ModelMessage } from "./model.ts";
import type { AgentDefinition, SelectorDefinition } from "./team.ts";
import { tokenizerFor } from "./tokenizer.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/** Whom the manager's model calls are recorded for: no agent may have this name. */
export const SELECTOR = "selector";

/**
 * Runs a turn of a team whose manager, a model, picks who speaks next by names and descriptions (AutoGen's
 * SelectorGroupChat). Each pick is a model call of the turn, counted and paid as agents' are. Throws as `runGroupTeam`.
 */
export function runSelectorTeam(turn: TurnInput, ports: TurnPorts): Promise<TurnEnd> {
  const { selector } = turn.team;
  if (selector === undefined)
    throw new Failure("INTERNAL", {}, { cause: new Error("a selector team has no selector") });
  return runGroupTeam(turn, ports, {
    async next({ said, last, rounds, stopped }) {
      const chosen = await select({ turn, selector, said, last: last?.agent, rounds, stopped }, ports);
      if (!("finishReason" in chosen)) ports.emit({ case: "speakerSelected", value: { agent: chosen.name } });
      return chosen;
    },
  });
}

interface Selecting {
  readonly turn: TurnInput;
  readonly selector: SelectorDefinition;
  readonly said: Said;
  /** Who spoke last in this turn. */
  readonly last: AgentDefinition | undefined;
  readonly rounds: Rounds;
  /** Who may not speak any more. */
  readonly stopped: ReadonlySet<AgentDefinition>;
}

/**
 * Asks the manager until it names one agent that may speak, at most `maxAttempts` times; then the last speaker goes on, where
 * that is allowed, or else the first of those who may speak does. One agent that alone may speak is not asked for.
 */
async function select(
  { turn, selector, said, last, rounds, stopped }: Selecting,
  ports: TurnPorts,
): Promise<NextSpeaker> {
  const { team } = turn;
  const speaking = team.agents.filter((agent) => !stopped.has(agent));
  const candidates = speaking.filter((agent) => selector.allowRepeatSpeaker || agent !== last);
  const goingOn = selector.allowRepeatSpeaker && last !== undefined && speaking.includes(last) ? last : undefined;
  const fallback = goingOn ?? candidates[0] ?? speaking[0] ?? team.agents[0];
  if (candidates.length <= 1) return fallback;
  let messages = promptFor({ turn, selector, said, candidates }, ports);
  for (let attempt = 0; attempt < selector.maxAttempts; attempt++) {
    if (rounds.left === 0) return { finishReason: FinishReason.MAX_ROUNDS };
    const isFirst = rounds.left === team.maxRounds;
    const tokens = tokenizerFor(selector.model).countPrompt(messages);
    if (Math.min(selector.contextWindowTokens, ports.tokensLeft()) - tokens < ANSWER_RESERVE_TOKENS) {
      if (isFirst) throw new Failure("TURN_TOKEN_BUDGET");
      return { finishReason: FinishReason.TOKEN_BUDGET };
    }
    rounds.left--;
    const bounds = { maxOutputTokens: ANSWER_RESERVE_TOKENS, maxTotalTokens: ports.tokensLeft() };
    const request = { messages, tools: [], temperature: 0, ...bounds };
    const caller = { agent: SELECTOR, model: selector.model, timeoutMs: team.callTimeoutMs, isFirst };
    const reply = await ports.modelStep({ agent: SELECTOR, name: selector.model }, () =>
      callModel({ ...caller, ...request }, ports),
    );
    // A choice that was cut is read as it stands; only what ends every turn ends this one.
    const end = reply.ended === "length" || reply.ended === "content_filter" ? undefined : endOf(reply);
    if (end !== undefined) return end;
    const named = mentionedIn(reply.content, team.agents);
    const [chosen] = named;
    if (chosen !== undefined && named.length === 1 && candidates.includes(chosen)) return chosen;
    messages = [
      ...messages,
      { role: "assistant", content: reply.content },
      { role: "user", content: `${whatIsWrong(named)} Answer with exactly one of: ${namesOf(candidates)}.` },
    ];
  }
  return fallback;
}

/** The manager's first call of a turn, with the tokens of its prompt; undefined: it is not asked. */
export function firstSelection({
  team,
  history,
  message,
  maxTokens,
}: Pick<TurnInput, "team" | "history" | "message" | "maxTokens">):
  | { readonly model: string; readonly promptTokens: number; readonly maxOutputTokens: number; readonly fits: boolean }
  | undefined {
  const { selector, agents } = team;
  if (selector === undefined || agents.length <= 1) return undefined;
  const turn = { history, message };
  const prompt = promptFor({ turn, selector, said: [], candidates: agents }, { tokensLeft: () => maxTokens });
  const promptTokens = tokenizerFor(selector.model).countPrompt(prompt);
  const fits = Math.min(selector.contextWindowTokens, maxTokens) - promptTokens >= ANSWER_RESERVE_TOKENS;
  return { model: selector.model, promptTokens, maxOutputTokens: ANSWER_RESERVE_TOKENS, fits };
}

function whatIsWrong(named: readonly AgentDefinition[]): string {
  if (named.length === 0) return "That names nobody who takes part.";
  return named.length > 1 ? "That names more than one." : `${named[0]?.name} has just spoken and may not again.`;
}

/** Agents that a text names, by whole words. */
function mentionedIn(text: string, agents: readonly AgentDefinition[]): AgentDefinition[] {
  const words = new Set(text.match(/[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*/g));
  return agents.filter(({ name }) => words.has(name) || text.trim() === name);
}

/** The manager's prompt: the newest of what was said, as much as fits. */
function promptFor(
  {
    turn,
    selector,
    said,
    candidates,
  }: Pick<Selecting, "selector" | "said"> & {
    turn: Pick<TurnInput, "history" | "message">;
    candidates: readonly AgentDefinition[];
  },
  ports: Pick<TurnPorts, "tokensLeft">,
): readonly ModelMessage[] {
  const tokenizer = tokenizerFor(selector.model);
  const filled = (history: string): readonly ModelMessage[] => {
    const values: Readonly<Record<string, string>> = {
      roles: candidates.map(({ name, description = "" }) => `${name}: ${description}`).join("\n"),
      participants: namesOf(candidates),
      history,
    };
    // In one pass: what was said may have braces of its own.
    const content = selector.prompt.replace(/\{(roles|participants|history)\}/g, (_, key: string) => values[key] ?? "");
    return [{ role: "user", content }];
  };
  const limit = Math.min(selector.contextWindowTokens, ports.tokensLeft()) - ANSWER_RESERVE_TOKENS;
  let left = limit - tokenizer.countPrompt(filled(""));
  const lines = [
    ...turn.history.map(
      ({ message }) => `${message?.role === Role.USER ? "user" : message?.agent}: ${message?.content}`,
    ),
    `user: ${turn.message}`,
    ...said.map(({ agent, content }) => `${agent}: ${content}`),
  ];
  let start = lines.length;
  while (start > 0) {
    left -= tokenizer.countText(`${lines[start - 1]}\n`) + 1;
    // A selection without what was said last would be a guess: the caller finds that it does not fit.
    if (left < 0 && start < lines.length) break;
    start--;
  }
  return filled(lines.slice(start).join("\n"));
}

function namesOf(agents: readonly AgentDefinition[]): string {
  return agents.map(({ name }) => name).join(", ");
}
