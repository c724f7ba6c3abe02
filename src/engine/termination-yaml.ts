import * as z from "zod";
import type { TerminationDefinition } from "./termination.ts";

const limit = z.int().min(1).max(1_000_000_000);
const text = z.string().min(1).max(1_000);

interface TerminationYaml {
  readonly text_mention?: string | undefined;
  readonly max_messages?: number | undefined;
  readonly token_usage?: number | undefined;
  readonly timeout_seconds?: number | undefined;
  readonly handoff?: string | undefined;
  readonly function_call?: string | undefined;
  readonly source_match?: readonly string[] | undefined;
  readonly and?: readonly TerminationYaml[] | undefined;
  readonly or?: readonly TerminationYaml[] | undefined;
}

/** A condition of parley.yaml: one field, which names it. */
export const terminationYamlSchema: z.ZodType<TerminationYaml, TerminationYaml> = z
  .strictObject({
    text_mention: text.optional(),
    max_messages: limit.optional(),
    token_usage: limit.optional(),
    timeout_seconds: limit.optional(),
    handoff: text.optional(),
    function_call: text.optional(),
    source_match: z.array(text).min(1).optional(),
    and: z
      .array(z.lazy(() => terminationYamlSchema))
      .min(1)
      .optional(),
    or: z
      .array(z.lazy(() => terminationYamlSchema))
      .min(1)
      .optional(),
  })
  .refine((condition) => Object.keys(condition).length === 1, { error: () => "must have exactly one condition" });

/** The condition as the engine knows it. */
export function readTermination(yaml: TerminationYaml): TerminationDefinition {
  if (yaml.text_mention !== undefined) return { kind: "text_mention", text: yaml.text_mention };
  for (const kind of ["max_messages", "token_usage", "timeout_seconds"] as const)
    if (yaml[kind] !== undefined) return { kind, limit: yaml[kind] };
  for (const kind of ["handoff", "function_call"] as const)
    if (yaml[kind] !== undefined) return { kind, name: yaml[kind] };
  if (yaml.source_match !== undefined) return { kind: "source_match", sources: yaml.source_match };
  const kind = yaml.and === undefined ? "or" : "and";
  return { kind, conditions: (yaml[kind] ?? []).map(readTermination) };
}

/** Names of agents that a condition looks for and that are no members. */
export function strangersIn(condition: TerminationDefinition, members: readonly string[]): string[] {
  switch (condition.kind) {
    case "and":
    case "or":
      return condition.conditions.flatMap((one) => strangersIn(one, members));
    case "source_match":
      return condition.sources.filter((name) => !members.includes(name));
    case "handoff":
      return members.includes(condition.name) ? [] : [condition.name];
    default:
      return [];
  }
}
