// What the page asks the API. Nothing is decided here: what is refused is told in the API's own words.

/** A refusal or a failure, as RFC 9457 has it; `status` 0: nobody answered. */
export class Problem extends Error {
  constructor(status, told) {
    super(told.detail || told.message || told.title || "no reason is given");
    this.status = status;
    this.what = told.what;
    this.why = told.why;
    this.todo = told.todo;
  }
}

const PATIENCE_MS = 70_000;

/** The value of an answer: JSON, or text. `body` is sent as JSON. */
export async function ask(method, path, body) {
  const request = { method, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS), headers: {} };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response, text;
  try {
    response = await fetch(`/api/v2${path}`, request);
    text = await response.text();
  } catch {
    throw new Problem(0, { detail: "The cluster does not answer; what was asked may still have happened." });
  }
  const isJson = /json/.test(response.headers.get("Content-Type") || "");
  let value = text;
  if (isJson) {
    try {
      value = JSON.parse(text);
    } catch {
      throw new Problem(response.status, { detail: "The answer cannot be read." });
    }
  }
  if (!response.ok) throw new Problem(response.status, isJson ? value : { detail: text.trim() });
  return value;
}

/** A path of the API whose parts may hold anything. */
export function path(...parts) {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

/** Opens a session; whether the token was one. */
export async function logIn(token) {
  let response;
  try {
    response = await fetch("/api/v1/auth/login", {
      method: "POST",
      body: new URLSearchParams({ token }),
      redirect: "manual",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    throw new Problem(0, { detail: "The cluster does not answer." });
  }
  if (response.status === 401 || response.status === 400) return false;
  // The session's cookie came with the redirection, which leads nowhere that a page wants to go.
  if (response.ok || response.type === "opaqueredirect") return true;
  throw new Problem(response.status, { detail: `The login failed with status ${response.status}.` });
}

export async function logOut() {
  const request = { method: "POST", redirect: "manual", signal: AbortSignal.timeout(PATIENCE_MS) };
  await fetch("/api/v1/auth/logout", request).catch(() => {});
}
