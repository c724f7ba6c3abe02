import { Cluster, type Redis } from "ioredis";

/** What comes by Redis's sharded channels: one connection for all of them, in a Cluster one per shard. */
export interface LiveChannels {
  /**
   * Calls `onMessage` with what is published to the channel from about now on; without a message when some may have been
   * missed: once when the subscription stands, and when it stands again after the connection was lost. Returns how to stop.
   */
  subscribe(channel: string, onMessage: (message: Buffer | undefined) => void): () => void;
  close(): void;
}

/** A subscription that was refused is tried again after this many milliseconds: a shard may be on its way to a new master. */
const RETRY_MS = 250;

/** Uses connections of their own, made at the first subscription; `client` says where to. */
export function createLiveChannels(client: Redis | Cluster): LiveChannels {
  const channels = new Map<string, Set<(message: Buffer | undefined) => void>>();
  let subscriber: Redis | Cluster | undefined;
  let closed = false;

  const tell = (channel: string, message: Buffer | undefined): void => {
    for (const onMessage of channels.get(channel) ?? []) onMessage(message);
  };
  const connect = (): Redis | Cluster => {
    const made = client instanceof Cluster ? duplicateCluster(client) : duplicateRedis(client);
    made.on("error", () => undefined);
    made.on("smessageBuffer", (channel: Buffer, message: Buffer) => tell(String(channel), message));
    // After a lost connection the client subscribes by itself; what was published meanwhile is gone.
    const missed = (): void => {
      for (const channel of channels.keys()) tell(channel, undefined);
    };
    made.on("ready", missed);
    made.on("subscribersReady", missed);
    return made;
  };
  const start = (channel: string): void => {
    subscriber ??= connect();
    subscriber.ssubscribe(channel).then(
      () => tell(channel, undefined),
      () => setTimeout(() => !closed && channels.has(channel) && start(channel), RETRY_MS).unref(),
    );
  };

  return {
    subscribe(channel, onMessage) {
      const listeners = channels.get(channel);
      const listener = (message: Buffer | undefined): void => onMessage(message);
      if (listeners === undefined) {
        channels.set(channel, new Set([listener]));
        start(channel);
      } else {
        listeners.add(listener);
      }
      return () => {
        const left = channels.get(channel);
        if (left?.delete(listener) !== true || left.size > 0) return;
        channels.delete(channel);
        subscriber?.sunsubscribe(channel).catch(() => undefined);
      };
    },
    close() {
      closed = true;
      channels.clear();
      subscriber?.disconnect();
    },
  };
}

function duplicateRedis(client: Redis): Redis {
  return client.duplicate({ lazyConnect: false, enableAutoPipelining: false });
}

function duplicateCluster(client: Cluster): Cluster {
  return client.duplicate([], {
    lazyConnect: false,
    shardedSubscribers: true,
    redisOptions: { enableAutoPipelining: false },
  });
}
