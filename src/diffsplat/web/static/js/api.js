// Client of the server's API, with the token if it requires one. Every failure is an Error whose message is a sentence.
const TOKEN_KEY = "diffsplat-token";
const AGAIN_MS = 1000;
const MOST_TRIES = 30;
const SILENT = "The server does not answer. Check that diffsplat serve is still running and reachable, then try again.";

/** The server cannot be reached. */
class UnreachableError extends Error {}

/** @param askToken called when the token is missing or wrong; gives it, or null when the person has none */
export class Api {
  #askToken;
  #token = sessionStorage.getItem(TOKEN_KEY);

  constructor(askToken) {
    this.#askToken = askToken;
  }

  /** Ask for the token now, if the server requires one that is not known. */
  async open() {
    const { token_needed: needed } = await (await this.#ask("api/health")).json();
    if (needed && !this.#token) this.#learn(await this.#askToken());
  }

  /** Models, limits and file types. */
  async catalogue() {
    return (await this.#ask("api/models")).json();
  }

  /** Put a job into the queue. @param values texts and files by field @returns the job */
  async submit(values) {
    return (await this.#ask("api/jobs", { method: "POST", body: formOf(values) })).json();
  }

  /** The object of an image, cut out and framed as `framing` says, as the model will see it. @returns {Promise<Blob>} */
  async cutOut(image, framing) {
    return (await this.#ask("api/cutouts", { method: "POST", body: formOf({ image, ...framing }) })).blob();
  }

  /** All jobs: finished ones, oldest first, then those that run or wait. */
  async jobs() {
    return (await this.#ask("api/jobs")).json();
  }

  /** The job as it is now, or null when the server no longer has it. */
  async job(id) {
    const response = await this.#ask(`api/jobs/${id}`, {}, [404]);
    return response.ok ? response.json() : null;
  }

  /** Cancel a job, or delete a finished one. */
  async cancel(id) {
    await this.#ask(`api/jobs/${id}`, { method: "DELETE" }, [404]);
  }

  /** A file of a result. @returns {Promise<{blob: Blob, name: string}>} */
  async file(url) {
    const response = await this.#ask(url.replace(/^\//, ""));
    const [, name] = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "") ?? [];
    return { blob: await response.blob(), name: name ?? url.split("/").pop() };
  }

  /**
   * Call `onChange(job)` after every change of a job, and `onSilence()` while the server does not answer.
   * @returns the job at its end, or null when it is gone
   */
  async follow(id, onChange, onSilence) {
    let last = null;
    for (let tries = 0; tries < MOST_TRIES; tries += 1) {
      try {
        for await (const job of this.#events(id)) {
          last = job;
          tries = 0;
          onChange(job);
        }
        if (last && isFinished(last)) return last;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
        last = await this.job(id);
        if (!last || isFinished(last)) return last;
      } catch (error) {
        if (!(error instanceof UnreachableError || error instanceof TypeError)) throw error;
        console.info(error);
        onSilence();
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
    throw new UnreachableError(SILENT);
  }

  async *#events(id) {
    const response = await this.#ask(`api/jobs/${id}/events`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").find((line) => line.startsWith("data: "));
        if (data) yield JSON.parse(data.slice(6));
      }
    }
  }

  async #ask(url, options = {}, expected = []) {
    for (;;) {
      const headers = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
      const response = await fetch(url, { ...options, headers }).catch((cause) => {
        throw new UnreachableError(SILENT, { cause });
      });
      if (response.ok || expected.includes(response.status)) return response;
      if (response.status !== 401) throw new Error(await sentenceOf(response));
      this.#learn(await this.#askToken());
      if (!this.#token) throw new Error(await sentenceOf(response));
    }
  }

  #learn(token) {
    this.#token = token;
    if (token) sessionStorage.setItem(TOKEN_KEY, token);
    else sessionStorage.removeItem(TOKEN_KEY);
  }
}

/** Whether nothing about a job will change any more. */
export function isFinished(job) {
  return ["done", "failed", "cancelled"].includes(job.state);
}

/** With a capital and a full stop. */
export function asSentence(text) {
  if (!text) return "";
  const stopped = /[.!?]$/.test(text) ? text : `${text}.`;
  return stopped[0].toUpperCase() + stopped.slice(1);
}

async function sentenceOf(response) {
  try {
    return asSentence((await response.json()).detail);
  } catch {
    return `The server responded with status ${response.status}.`;
  }
}

function formOf(values) {
  const form = new FormData();
  for (const [name, value] of Object.entries(values)) {
    for (const each of [value].flat()) if (each !== null && each !== "") form.append(name, each);
  }
  return form;
}
