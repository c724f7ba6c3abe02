import { useLayoutEffect, useReducer } from "preact/hooks";

/** A value that tells who watches it when it changes. */
export interface Cell<T> {
  get(): T;
  /** Calls `listener` after each change; returns how to stop. */
  watch(listener: () => void): () => void;
}

export interface WritableCell<T> extends Cell<T> {
  set(value: T): void;
}

export function createCell<T>(initial: T): WritableCell<T> {
  let value = initial;
  const listeners = new Set<() => void>();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of [...listeners]) listener();
    },
    watch(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The cell's value; the component renders again when it changes. */
export function useCell<T>(cell: Cell<T>): T {
  const [, rerender] = useReducer<number, undefined>((count) => count + 1, 0);
  const value = cell.get();
  useLayoutEffect(() => {
    // It may have changed between the rendering and now.
    if (!Object.is(cell.get(), value)) rerender(undefined);
    return cell.watch(() => rerender(undefined));
  }, [cell]);
  return value;
}
