import type { Model } from "../engine/model.ts";
import { Failure } from "../failure.ts";

/** One model port over many models: each call goes to the one that its request names. */
export function createModelRouter(models: ReadonlyMap<string, Model>): Model {
  return {
    call(request, observer) {
      const model = models.get(request.model);
      if (model === undefined) return Promise.reject(new Failure("INTERNAL"));
      return model.call(request, observer);
    },
  };
}
