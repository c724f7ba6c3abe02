import type { Model } from "../engine/model.ts";
import { Failure } from "../failure.ts";

/** One model port over many models: each call goes to the one that its request names. */
export function createModelRouter(models: ReadonlyMap<string, Model>): Model {
  return {
    call(request, observer) {
      const model = models.get(request.model);
      // A turn keeps the team that it began with; whoever takes it over may have another configuration.
      if (model === undefined) return Promise.reject(new Failure("MODEL_REFUSED"));
      return model.call(request, observer);
    },
  };
}
