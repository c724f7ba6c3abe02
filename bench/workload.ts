/** Words of nine letters, so that a tokenizer has something to do: a run of one letter is its worst case, not its common one. */
const WORDS = [
  ..."afternoon beginning character direction essential following gathering happening important junctions".split(" "),
  ..."knowledge landscape marvelous nighttime operation president questions requested something tradition".split(" "),
];

/** The pieces of every reply, one word each (DESIGN §8: 20 of them). */
export const REPLY_CHUNKS: readonly string[] = WORDS.map((word) => `${word} `);

/** Every reply: a message of 200 bytes. */
export const REPLY = REPLY_CHUNKS.join("");

/** Every user's message: 200 bytes too. */
export const MESSAGE = WORDS.toReversed().join(" ").padEnd(200, "?");

/** Messages that the model is shown of a session's history (DESIGN §8). */
export const WINDOW_MESSAGES = 10;

/**
 * How the model double answers, by the model's name. Parley's agent teams bear the same names.
 * They begin as the name of a model whose tokenizer is known: counting tokens is part of the work.
 */
export const MODEL_NAMES = {
  /** All pieces at once. */
  burst: "gpt-4-burst",
  /** A piece every 10 ms. */
  paced: "gpt-4-paced",
  /** One piece, and the rest when the bench releases it. */
  hold: "gpt-4-hold",
} as const;

export type ModelName = (typeof MODEL_NAMES)[keyof typeof MODEL_NAMES];
