import { type LinearPattern, linearPattern } from "./linear-pattern.ts";

/** Checks of a team's conversation, by name. A running turn keeps those that it began with. */
export interface Guardrails {
  /** Of what the user says. */
  readonly input: readonly GuardrailDefinition[];
  /** Of what agents say to the user, each message by itself. */
  readonly output: readonly GuardrailDefinition[];
}

export type GuardrailDefinition =
  | {
      readonly name: string;
      readonly kind: "size";
      /** Unicode code points that a text may have. */
      readonly maxCharacters: number;
    }
  | {
      readonly name: string;
      readonly kind: "pattern";
      /** A regular expression, as RE2 knows them, that no text may match. */
      readonly pattern: string;
      readonly ignoreCase: boolean;
      /** UTF-16 units of a message's end that are held back while it goes on: what matches is not shown in part. */
      readonly holdCharacters: number;
    };

/** A message on its way to the user. */
export interface OutputGuard {
  /** Takes the next piece; returns what may be shown of all so far and was not yet: maybe nothing. */
  push(text: string): string;
  /** Ends the message; returns what was held back and may be shown. */
  end(): string;
  /** Name of the check that has failed. From then on nothing may be shown. */
  readonly tripped: string | undefined;
}

/** Name of the first check that one of the texts fails, if one does. */
export function failedCheck(checks: readonly GuardrailDefinition[], texts: readonly string[]): string | undefined {
  return checks.find((check) => !texts.every(passes(check)))?.name;
}

/**
 * What a message may go on with: a match that either of them undoes stands or falls with what follows. `\bdamn\b` is not in
 * `damnation`, however a model cuts it.
 */
const CONTINUATIONS = ["a", " "] as const;

/** Holds a message to its checks as it streams. */
export function createOutputGuard(checks: readonly GuardrailDefinition[]): OutputGuard {
  if (checks.length === 0) return { push: (text) => text, end: () => "", tripped: undefined };
  const tests = checks.map((check) => ({ check, isRight: passes(check) }));
  const hold = Math.max(0, ...checks.map((check) => (check.kind === "pattern" ? check.holdCharacters : 0)));
  const bound = Math.min(...checks.map((check) => (check.kind === "size" ? check.maxCharacters : Infinity)));
  let text = "";
  let shown = 0;
  let tripped: string | undefined;
  const show = (until: number): string => {
    const from = shown;
    shown = Math.max(shown, wholeCharacter(text, until));
    return text.slice(from, shown);
  };
  return {
    push(piece) {
      if (tripped !== undefined) return "";
      text += piece;
      const failed = tests.filter(({ isRight }) => !isRight(text));
      tripped = failed.find(({ isRight }) => CONTINUATIONS.every((more) => !isRight(text + more)))?.check.name;
      // What is too long is shown as far as it may be; of what matches, or may, nothing more is.
      if (failed.some(({ check }) => check.kind === "pattern")) return "";
      if (tripped === undefined) return show(text.length - hold);
      return show(Array.from(text).slice(0, bound).join("").length);
    },
    end() {
      tripped ??= tests.find(({ isRight }) => !isRight(text))?.check.name;
      return tripped === undefined ? show(text.length) : "";
    },
    get tripped() {
      return tripped;
    },
  };
}

function passes(check: GuardrailDefinition): (text: string) => boolean {
  if (check.kind === "size") {
    const { maxCharacters } = check;
    // There are no more code points than UTF-16 units: most texts need not be counted.
    return (text) => text.length <= maxCharacters || Array.from(text).length <= maxCharacters;
  }
  const pattern = compiled(check);
  return (text) => !pattern.test(text);
}

function compiled({ pattern, ignoreCase }: Extract<GuardrailDefinition, { kind: "pattern" }>): LinearPattern {
  try {
    return linearPattern(pattern, { ignoreCase });
  } catch {
    // A turn that began, or waits, with a definition of 0.6.0, which took JavaScript's expressions.
    return new RegExp(pattern, ignoreCase ? "iu" : "u");
  }
}

/** The place, or the one before it where it would cut a surrogate pair. */
function wholeCharacter(text: string, place: number): number {
  const code = text.charCodeAt(place - 1);
  return code >= 0xd800 && code <= 0xdbff ? place - 1 : place;
}
