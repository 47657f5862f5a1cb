/** The highest place that a session has written in each line: nothing smaller may follow it there. */
import type { Delivery } from '../bridge/messages.ts';

type Place = NonNullable<Delivery['place']>;

/** A device has a few ports and settings, a BKV session up to 250 sockets; the oldest write is forgotten first. */
const maxLines = 512;

export class WrittenPlaces {
  /** Oldest write first; made by the first, since most sessions write none. */
  #seqs: Map<string, number> | null = null;

  /** The place of its line that was written already and that it must not follow; null when it may go. */
  laterThan(place: Place | undefined): number | null {
    if (!place) return null;
    const written = this.#seqs?.get(place.line);
    // An equal one is a further attempt of the same command.
    return written !== undefined && written > place.seq ? written : null;
  }

  written(place: Place | undefined): void {
    if (!place) return;
    this.#seqs ??= new Map();
    this.#seqs.delete(place.line);
    this.#seqs.set(place.line, place.seq);
    if (this.#seqs.size > maxLines) this.#seqs.delete(this.#seqs.keys().next().value!);
  }
}
