/** AP3000 ("DNY" framing): AP3000 device protocol V8.6, host protocol V2.9. */
import type { Protocol } from '../protocol.ts';
import { answerTo, weightOf } from './answers.ts';
import { chargeCommands } from './charge-commands.ts';
import { deviceCommands } from './device-commands.ts';
import { isFactoryDefault, parseDeviceId } from './device-id.ts';
import { maxFrameBytes, protocolName } from './frame.ts';
import { createDecoder, sniff } from './framing.ts';
import { encodeMessage } from './message.ts';
import { parameterCommands } from './parameter-commands.ts';
import { sightingsOf, sightingsOfResult } from './sightings.ts';

export const ap3000: Protocol = {
  name: protocolName,
  title: 'AP3000 charging socket, host or cabinet',
  limits: {
    frameBytes: maxFrameBytes,
    partialFrameMs: 10_000,
    inFlight: 1,
    // the vendor asks for half a second, 15 s of patience and one resend
    gapMs: 500,
    ackTimeoutMs: 15_000,
    attempts: 2,
    heartbeatMs: 180_000,
    maxWireId: 0xffff,
  },
  commands: { ...chargeCommands, ...parameterCommands, ...deviceCommands },
  deviceId: parseDeviceId,
  isFactoryDefault,
  sniff,
  decoder: createDecoder,
  encode: encodeMessage,
  answer: answerTo,
  weight: weightOf,
  sightings: sightingsOf,
  sightingsOfResult,
};
