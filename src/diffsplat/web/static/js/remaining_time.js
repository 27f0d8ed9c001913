// How long a job will still take, from how long its steps took so far.
const SECOND = 1000;

/** `about 12 s left`, or nothing while that is unknown; `now` in milliseconds. */
export class RemainingTime {
  #first = null;

  words({ steps_done: done, steps_in_all: all }, now = performance.now()) {
    if (!this.#first || done < this.#first.done) this.#first = { done, now };
    const steps = done - this.#first.done;
    if (steps < 2) return "";
    const seconds = Math.ceil((((now - this.#first.now) / steps) * (all - done)) / SECOND);
    return seconds < 100 ? `about ${seconds} s left` : `about ${Math.round(seconds / 60)} min left`;
  }
}
