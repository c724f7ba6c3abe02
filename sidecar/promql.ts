/**
 * Whether a counter has risen within a window, per labels. `increase` misses the first value of a series, so that an event
 * that made its series would never be seen: series that were not there a window ago count with all they have.
 */
export function risen(counter: string, { by, window }: { by: readonly string[]; window: string }): string {
  const seen = `increase(${counter}[${window}]) > 0`;
  return `sum by (${["namespace", ...by].join(", ")}) (${seen} or ${firstSeen(counter, window)} > 0)`;
}

/**
 * How far a counter has risen within a window, series by series. `increase` begins with the first value it sees: series that
 * were not there a window ago count with all they have.
 */
export function rise(counter: string, window: string): string {
  return `${firstSeen(counter, window)} or increase(${counter}[${window}])`;
}

/** The series of a counter that were not there a window ago, with their values. */
function firstSeen(counter: string, window: string): string {
  return `(${counter} unless ${counter} offset ${window})`;
}
