import type { StopReason } from "./ports.ts";

/** Why a turn's work was ended from outside: the reason of its signal. */
export class TurnStopped extends Error {
  readonly finishReason: StopReason;

  constructor(finishReason: StopReason) {
    super("turn stopped");
    this.finishReason = finishReason;
  }
}
