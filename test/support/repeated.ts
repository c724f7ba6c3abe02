import { Failure } from "../../src/failure.ts";

/** Repeats an operation that is idempotent until the store answers; between two tries it waits so many milliseconds. */
export async function repeated<T>(operation: () => Promise<T>, { everyMs = 10 } = {}): Promise<T> {
  for (;;) {
    try {
      return await operation();
    } catch (error) {
      if (!(error instanceof Failure) || error.reason !== "STORE_UNAVAILABLE") throw error;
      await new Promise((resolve) => setTimeout(resolve, everyMs));
    }
  }
}
