// Short messages that disappear after a while.
import { iconButton, make } from "./dom.js";

const STAY_MS = 8000;

/** `notify(sentence, kind)` for messages inside `parent`; kinds "error" and "warning" stay until they are closed. */
export function createNotices(parent) {
  const list = make("div", { class: "notices", role: "status", "aria-live": "polite" });
  parent.append(list);
  return function notify(sentence, kind = "info") {
    const close = iconButton("close", "Close message", () => notice.remove());
    const notice = make("div", { class: `notice ${kind}`, role: kind === "error" ? "alert" : undefined },
      make("span", {}, sentence), close);
    list.append(notice);
    if (kind === "info") setTimeout(() => notice.remove(), STAY_MS);
    return notice;
  };
}
