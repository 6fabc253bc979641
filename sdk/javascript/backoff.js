/**
 * How long to wait before a connection is tried again: exponential backoff with full jitter, so that a
 * thousand services that lost the same router do not come back in the same moment.
 */
export class Backoff {
  #attempt = 0;

  /** @param {{ first?: number, longest?: number, random?: () => number }} options in milliseconds */
  constructor({ first = 200, longest = 10_000, random = Math.random } = {}) {
    Object.assign(this, { first, longest, random });
  }

  /** Milliseconds until the next attempt: anywhere between 0 and a ceiling that doubles each time. */
  next() {
    const ceiling = Math.min(this.longest, this.first * 2 ** Math.min(this.#attempt, 30));
    this.#attempt += 1;
    return this.random() * ceiling;
  }

  /** A connection has proved good: the next loss begins anew. */
  reset() {
    this.#attempt = 0;
  }
}
