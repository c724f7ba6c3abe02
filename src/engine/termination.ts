/**
 * When a team of several agents ends a turn, in AutoGen's words. A leaf that was met once stays met, so that `and` need not be
 * met by one answer.
 */
export type TerminationDefinition =
  | Leaf
  | { readonly kind: "and" | "or"; readonly conditions: readonly TerminationDefinition[] };

type Leaf =
  | { readonly kind: "text_mention"; readonly text: string }
  | { readonly kind: "max_messages" | "token_usage" | "timeout_seconds"; readonly limit: number }
  | { readonly kind: "handoff" | "function_call"; readonly name: string }
  | { readonly kind: "source_match"; readonly sources: readonly string[] };

/** What conditions look at when an agent has answered: all of it stands in the turn's journal. */
export interface AnswerFacts {
  readonly agent: string;
  readonly content: string;
  /** Messages of the turn so far, the user's included. */
  readonly messages: number;
  /** Tokens that count against the turn's bound. */
  readonly usedTokens: number;
  /** From the turn's admission until the answer, in milliseconds. */
  readonly elapsedMs: number;
  /** Tools that the agent has called for its answer. */
  readonly calls: readonly string[];
  readonly handoff: string | undefined;
}

/** AutoGen's names. */
const NAMES = {
  text_mention: "TextMentionTermination",
  max_messages: "MaxMessageTermination",
  token_usage: "TokenUsageTermination",
  timeout_seconds: "TimeoutTermination",
  handoff: "HandoffTermination",
  function_call: "FunctionCallTermination",
  source_match: "SourceMatchTermination",
} as const;

/** Follows a turn: takes each answer; returns the name of the condition that is met by then, if one is. */
export function createTermination(definition: TerminationDefinition): (facts: AnswerFacts) => string | undefined {
  if ("conditions" in definition) {
    const isAnd = definition.kind === "and";
    const conditions = definition.conditions.map(createTermination);
    return (facts) => {
      // All of them see each answer.
      const met = conditions.map((condition) => condition(facts));
      if (!isAnd) return met.find((name) => name !== undefined);
      return met.includes(undefined) ? undefined : met.join(" & ");
    };
  }
  let met = false;
  return (facts) => {
    met ||= isMet(definition, facts);
    return met ? NAMES[definition.kind] : undefined;
  };
}

function isMet(leaf: Leaf, facts: AnswerFacts): boolean {
  switch (leaf.kind) {
    case "text_mention":
      return facts.content.includes(leaf.text);
    case "max_messages":
      return facts.messages >= leaf.limit;
    case "token_usage":
      return facts.usedTokens >= leaf.limit;
    case "timeout_seconds":
      return facts.elapsedMs >= leaf.limit * 1_000;
    case "handoff":
      return facts.handoff === leaf.name;
    case "function_call":
      return facts.calls.includes(leaf.name);
    case "source_match":
      return leaf.sources.includes(facts.agent);
  }
}
