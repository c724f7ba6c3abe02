/** Who has seen what the process has counted. A counter that ends with its process before a scrape was never counted. */
export interface Scrapes {
  /** Something was counted. */
  counted(): void;
  /** Renders the metrics for a scrape. */
  of(render: () => Promise<string>): Promise<string>;
  /**
   * Resolves once a scrape has seen all that was counted, after `patienceMs` milliseconds without one, or at once where nobody has
   * ever scraped.
   */
  last(patienceMs: number): Promise<void>;
}

export function createScrapes(): Scrapes {
  let counted = 0;
  let seen: number | undefined;
  const allSeen = Promise.withResolvers<void>();
  let isLast = false;
  const look = (): void => {
    if (isLast && seen === counted) allSeen.resolve();
  };
  return {
    counted() {
      counted += 1;
    },
    async of(render) {
      const before = counted;
      const text = await render();
      seen = before;
      look();
      return text;
    },
    async last(patienceMs) {
      if (seen === undefined || patienceMs === 0) return;
      isLast = true;
      look();
      const timer = setTimeout(allSeen.resolve, patienceMs);
      await allSeen.promise;
      clearTimeout(timer);
    },
  };
}
