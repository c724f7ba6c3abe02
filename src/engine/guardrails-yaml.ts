import * as z from "zod";
import type { GuardrailDefinition, Guardrails } from "./guardrails.ts";
import { linearPattern } from "./linear-pattern.ts";

/** Characters that are held back by default: as long as what patterns mostly look for, and a tenth of a second of speech. */
const HOLD_CHARACTERS = 40;

const guardrail = z
  .strictObject({
    name: z.string().regex(/^[A-Za-z0-9._-]{1,64}$/, { error: () => "must be 1 to 64 characters of [A-Za-z0-9._-]" }),
    max_characters: z.int().min(1).max(1_000_000).optional(),
    pattern: z
      .string()
      .min(1)
      .max(1_000)
      .refine(isPattern, {
        error: () => "is no regular expression of RE2's, which has no look-around and no back-references",
      })
      .optional(),
    ignore_case: z.boolean().optional(),
    hold_characters: z.int().min(0).max(10_000).optional(),
  })
  .refine(({ max_characters, pattern }) => (max_characters === undefined) !== (pattern === undefined), {
    error: () => "must have either max_characters or pattern",
  })
  .refine(
    ({ pattern, ignore_case, hold_characters }) =>
      pattern !== undefined || (ignore_case === undefined && hold_characters === undefined),
    { error: () => "has ignore_case or hold_characters, which go with pattern" },
  );

const checks = z
  .array(guardrail)
  .max(100)
  .refine((all) => new Set(all.map(({ name }) => name)).size === all.length, {
    error: () => "must each have a name of its own",
  })
  .default([]);

/** A team's guardrails in parley.yaml. */
export const guardrailsYamlSchema = z.strictObject({ input: checks, output: checks });

/** The checks as the engine knows them. */
export function readGuardrails({ input, output }: z.infer<typeof guardrailsYamlSchema>): Guardrails {
  return { input: input.map(readGuardrail), output: output.map(readGuardrail) };
}

function readGuardrail({
  name,
  max_characters: maxCharacters,
  pattern = "",
  ignore_case: ignoreCase = false,
  hold_characters: holdCharacters = HOLD_CHARACTERS,
}: z.infer<typeof guardrail>): GuardrailDefinition {
  if (maxCharacters !== undefined) return { name, kind: "size", maxCharacters };
  return { name, kind: "pattern", pattern, ignoreCase, holdCharacters };
}

function isPattern(text: string): boolean {
  try {
    linearPattern(text);
    return true;
  } catch {
    return false;
  }
}
