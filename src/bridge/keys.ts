/** Every Redis key and channel of the bridge. Keys of one device share a slot through their shard's tag. */
export type Keys = ReturnType<typeof createKeys>;

/** The shard of a device: stable for ever, whatever process asks. */
export function shardOf(deviceId: string, shards: number): number {
  // FNV-1a, 32 bits: even for ids that differ in one digit, and cheap, since every key asks for it.
  let hash = 0x811c9dc5;
  for (let i = 0; i < deviceId.length; i += 1) {
    hash = Math.imul(hash ^ deviceId.charCodeAt(i), 0x01000193);
  }
  return ((hash ^ (hash >>> 15)) >>> 0) % shards;
}

/** Names under one prefix; two installations on one Redis differ in it. */
export function createKeys(prefix: string, shards: number) {
  const tag = (shard: number) => `{${prefix}-${shard}}`;
  const tagOf = (deviceId: string) => tag(shardOf(deviceId, shards));
  return {
    prefix,
    shards,
    shardOf: (deviceId: string) => shardOf(deviceId, shards),
    /** BullMQ's key prefix of a shard. */
    queuePrefix: (shard: number) => tag(shard),
    queueName: (shard: number) => `outbound-${shard}`,
    /** Hash {gatewayId, epoch, protocol, since}. */
    presence: (deviceId: string) => `${tagOf(deviceId)}:presence:${deviceId}`,
    /** Hash of command id → mark of its published attempt, and of the wire message id given last. */
    marks: (deviceId: string) => `${tagOf(deviceId)}:marks:${deviceId}`,
    /** Sorted set of parked command ids, most urgent first. */
    parked: (deviceId: string) => `${tagOf(deviceId)}:parked:${deviceId}`,
    /** Set while a wake event counts as served. */
    served: (deviceId: string, event: string) => `${tagOf(deviceId)}:served:${event}`,
    /** Devices of a shard that may have parked commands. */
    parkedDevices: (shard: number) => `${tag(shard)}:parked-devices`,
    /** An outcome that reached the stream before its job ran again. */
    keptOutcome: (deviceId: string, id: string) => `${tagOf(deviceId)}:outcome:${id}`,
    /** Sorted set of the unfinished commands of one order key, by their place. */
    line: (deviceId: string, line: string) => `${tagOf(deviceId)}:line:${deviceId}:${line}`,
    /** Set of `device|line` of a shard: lines that may hold commands. */
    lines: (shard: number) => `${tag(shard)}:lines`,
    /** Set of the devices of a shard whose marks say that they are paused. */
    pausedDevices: (shard: number) => `${tag(shard)}:paused-devices`,
    /** Set of the ids of a shard that may log in where only known devices may: the copy of a column of the ledger. */
    knownDevices: (shard: number) => `${tag(shard)}:known`,
    /** Set once that copy is whole · set since its filling began: both are gone when Redis lost its memory. */
    knownLoaded: (shard: number) => `${tag(shard)}:known-loaded`,
    knownFilling: (shard: number) => `${tag(shard)}:known-filling`,
    /** Hash of command id → written frame whose answer may still come. */
    unanswered: (deviceId: string) => `${tagOf(deviceId)}:unanswered:${deviceId}`,
    /** Hash of worker id → its last heartbeat, Unix milliseconds of Redis. */
    workers: () => `${prefix}:workers`,
    /** Hash of gateway id → its last heartbeat. */
    gateways: () => `${prefix}:gateways`,
    /** Streams. */
    outcomes: () => `${prefix}:outcomes`,
    settlements: () => `${prefix}:settlements`,
    uplink: () => `${prefix}:uplink`,
    /** Channels. */
    gatewayChannel: (gatewayId: string) => `${prefix}:gateway:${gatewayId}`,
    workerChannel: (workerId: string) => `${prefix}:worker:${workerId}`,
    apiChannel: (apiId: string) => `${prefix}:api:${apiId}`,
    eventsChannel: () => `${prefix}:events`,
    /** Ids of devices that were registered, removed or changed, for those who remember devices. */
    deviceChangesChannel: () => `${prefix}:device-changes`,
    /** Set once; gone when Redis lost its memory. */
    memory: () => `${prefix}:memory`,
    lease: (duty: string) => `${prefix}:lease:${duty}`,
  };
}
