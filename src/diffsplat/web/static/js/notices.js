// Short messages that disappear after a while, errors later than others.
import { iconButton, make } from "./dom.js";

const STAY_MS = { info: 8000, warning: 20000, error: 20000 };

/** `notify(sentence, kind)` for messages inside `parent`; kinds "info", "warning" and "error". */
export function createNotices(parent) {
  const list = make("div", { class: "notices", role: "status", "aria-live": "polite" });
  parent.append(list);
  return function notify(sentence, kind = "info") {
    const close = iconButton("close", "Close message", () => notice.remove());
    const notice = make("div", { class: `notice ${kind}`, role: kind === "error" ? "alert" : undefined },
      make("span", {}, sentence), close);
    for (const same of list.querySelectorAll("span")) if (same.textContent === sentence) same.parentElement.remove();
    list.append(notice);
    setTimeout(() => notice.remove(), STAY_MS[kind]);
    return notice;
  };
}
