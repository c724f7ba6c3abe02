/** Pieces of text in every reply (DESIGN §8). */
export const REPLY_CHUNKS = 20;

/** Bytes in each piece: a reply is a message of 200 bytes. */
export const REPLY_CHUNK_BYTES = 10;

/** Bytes in every user message. */
export const MESSAGE_BYTES = 200;

/** Messages that the model is shown of a session's history (DESIGN §8). */
export const WINDOW_MESSAGES = 10;

/** How the model double answers, by the model's name. Parley's agent teams bear the same names. */
export const MODEL_NAMES = {
  /** All pieces at once. */
  burst: "burst",
  /** A piece every 10 ms. */
  paced: "paced",
  /** One piece, and the rest when the bench releases it. */
  hold: "hold",
} as const;

export type ModelName = (typeof MODEL_NAMES)[keyof typeof MODEL_NAMES];
