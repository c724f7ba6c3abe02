import { parse } from "yaml";
import * as z from "zod";

/** PromQL label matchers without braces, such as `namespace="chat",track="canary"`. */
const matchers = z.string().regex(/^[^{}]*$/, { error: "must be label matchers without braces" });

const factor = z.number().positive();

const conditions = z.strictObject({
  errorRatio: z
    .strictObject({
      factor: factor.describe("Canary's share of failed turns over stable's, at most."),
      floor: z.number().min(0).max(1).default(0.02).describe("A share that is no reason, whatever stable's is."),
    })
    .optional(),
  timeToFirstToken: z
    .strictObject({
      quantile: z.number().gt(0).lt(1).default(0.95),
      factor: factor.describe("Canary's quantile over stable's, at most."),
      floorSeconds: z.number().min(0).default(0.2).describe("A difference that is no reason."),
    })
    .optional(),
  costPerTurn: z
    .strictObject({
      factor: factor.describe("Canary's cost per turn over stable's, at most."),
      floorMicroUsd: z.number().min(0).default(1).describe("A difference that is no reason."),
    })
    .optional(),
  breakerOpen: z
    .strictObject({
      maxShare: z.number().min(0).max(1).describe("Share of the window with an open breaker, above stable's, at most."),
    })
    .optional(),
  unreadableSessions: z
    .strictObject({ max: z.number().int().min(0).describe("Sessions that the canary could not read, at most.") })
    .optional(),
});

/** The file of conditions; `gate/gate.schema.json` is made of it. */
export const gateFile = z.strictObject({
  window: z
    .string()
    .regex(/^[1-9]\d*[smh]$/, { error: "must be a time such as 15m" })
    .describe("Time that is looked at."),
  minTurns: z.number().int().min(1).default(50).describe("Turns of either track below which nothing is said."),
  selector: matchers.default("").describe('Matchers of all series that are looked at, such as namespace="chat".'),
  tracks: z
    .strictObject({ canary: matchers, stable: matchers })
    .default({ canary: 'track="canary"', stable: 'track="stable"' })
    .describe("Matchers that tell the two apart."),
  conditions: conditions.refine((given) => Object.values(given).some((one) => one !== undefined), {
    error: "must name at least one condition",
  }),
});

export type GateFile = z.infer<typeof gateFile>;
export type ConditionName = keyof GateFile["conditions"];

/** The file cannot be used; the message names each field that is wrong. */
export class GateFileError extends Error {
  override readonly name = "GateFileError";
}

/** Reads a file of conditions. Throws GateFileError with a line for each problem. */
export function parseGateFile(text: string): GateFile {
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new GateFileError(error instanceof Error ? error.message : "no YAML", { cause: error });
  }
  const parsed = gateFile.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new GateFileError(
    parsed.error.issues.map(({ path, message }) => `${path.join(".") || "the file"}: ${message}`).join("\n"),
  );
}
