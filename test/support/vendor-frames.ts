import { readFileSync } from 'node:fs';

const frames = JSON.parse(
  readFileSync(new URL('../frames/vendor_frames.json', import.meta.url), 'utf8'),
) as { name: string; hex: string }[];

/** The frame that the vendor's document prints under that name, as hex. */
export const vendor = (name: string): string => frames.find((frame) => frame.name === name)!.hex;
