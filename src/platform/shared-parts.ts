/** Parts that are made once for each definition, and put away when nobody uses them any more. */
export interface SharedParts<Definition, Part> {
  /** A definition's part, made where there is none. Whoever takes it gives it back, once. */
  take(definition: Definition): { readonly part: Part; giveBack(): void };
  /** Puts all away; resolves when those are away too that were put away before. */
  close(): Promise<void>;
}

export function createSharedParts<Definition, Part>({
  keyOf,
  make,
  close,
}: {
  /** Definitions with one key have one part. */
  keyOf(definition: Definition): string;
  make(definition: Definition): Part;
  close(part: Part): void | Promise<void>;
}): SharedParts<Definition, Part> {
  const inUse = new Map<string, { readonly part: Part; uses: number }>();
  const closing = new Set<Promise<void>>();
  const putAway = (key: string, part: Part): void => {
    inUse.delete(key);
    const done = Promise.resolve(close(part)).finally(() => closing.delete(done));
    closing.add(done);
    // Who waits for all of them hears of it.
    done.catch(() => undefined);
  };
  return {
    take(definition) {
      const key = keyOf(definition);
      const shared = inUse.get(key) ?? { part: make(definition), uses: 0 };
      inUse.set(key, shared);
      shared.uses++;
      return {
        part: shared.part,
        giveBack() {
          shared.uses--;
          if (shared.uses === 0 && inUse.get(key) === shared) putAway(key, shared.part);
        },
      };
    },
    async close() {
      for (const [key, { part }] of inUse) putAway(key, part);
      await Promise.all(closing);
    },
  };
}
