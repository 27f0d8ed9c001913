// Asks a person for the server's token.
import { make } from "./dom.js";

/** @returns {Promise<string | null>} the token, or null when the person has none */
export function askToken() {
  return new Promise((resolve) => {
    const input = make("input", { type: "password", name: "token", required: true, "aria-label": "Token", autocomplete: "current-password" });
    const dialog = make("dialog", { class: "ask", close: () => {
      dialog.remove();
      resolve(dialog.returnValue === "use" ? input.value : null);
    } },
    make("form", { method: "dialog" },
      make("h2", {}, "This server requires a token"),
      input,
      make("button", { class: "primary", value: "use" }, "Continue")));
    document.body.append(dialog);
    dialog.showModal();
  });
}
