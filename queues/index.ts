/** The package's `downlink/queues`: enqueueing without the HTTP API. */
export { shardOf } from '../src/bridge/keys.ts';
export type { Command, Params } from '../src/command.ts';
export { DownlinkError, type ErrorCode } from '../src/errors.ts';
export {
  createProducer,
  type Producer,
  type ProducerConnection,
  type ProducerOptions,
  type Production,
} from './producer.ts';
