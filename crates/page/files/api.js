// Requests to the recorder that served this page, and to nobody else. The token goes into a header: a cookie would go to other
// servers of this host too, because cookies ignore ports.

const KEY = 'retrocap-token', PATIENCE_MS = 15000;
let token = sessionStorage.getItem(KEY);
const shared = 'BroadcastChannel' in window ? new BroadcastChannel('retrocap') : null;

let renewed = () => {};

// Another tab of this page may ask for the token, or have a new one.
shared?.addEventListener('message', ({ data }) => {
  if (data === 'ask' && token) shared.postMessage({ token });
  else if (data?.fresh && data.token !== token) { keep(data.token); renewed(); }
});

// Calls `then` when another tab was opened with a new link.
export function onRenewed(then) { renewed = then; }

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || (status === 431 ? 'this is more than the recorder reads in one question' : `the recorder answered ${status}`));
    this.status = status;
    this.cause = problem.cause;
  }
}

// The recorder did not answer at all.
class Gone extends Error {}

export const isGone = (error) => error instanceof Gone || error.name === 'TimeoutError';
export const hasEnded = (error) => error instanceof Refused && error.status === 401;

// Takes the secret out of the address of the page and exchanges it; without one, another tab may have a token.
export async function enter() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const link = hash.get('link');
  if (link) {
    hash.delete('link');
    history.replaceState(null, '', `${location.pathname}#${hash}`);
    // A link is for a browser that has no session, so that it goes without the token of an earlier one.
    const before = token;
    token = null;
    try {
      keep((await post('POST /v1/page/session', { link })).token);
      shared?.postMessage({ token, fresh: true });
    } catch (error) {
      if (!before) throw error;
      token = before;
    }
  } else if (!token && shared) {
    const given = await new Promise((resolve) => {
      const take = ({ data }) => data?.token && resolve(data.token);
      shared.addEventListener('message', take);
      shared.postMessage('ask');
      setTimeout(() => resolve(null), 150);
    });
    if (given) keep(given);
  }
  return json('GET /v1/page');
}

function keep(text) {
  token = text;
  sessionStorage.setItem(KEY, text);
}

export async function leave() {
  await remove('DELETE /v1/page/session', {});
  sessionStorage.removeItem(KEY);
  token = null;
}

/** @import { Answers, Bodies, Lines, Questions } from '../types/api.d.ts' */

/**
 * @param {string} method
 * @param {string} target
 * @param {RequestInit} options
 */
async function send(method, target, options = {}) {
  /** @type {Record<string, string>} */
  const headers = { 'Retrocap-End': 'line' };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (options.body) headers['Content-Type'] = 'application/json';
  const answer = await fetch(target, { ...options, method, headers, cache: 'no-store', credentials: 'same-origin', redirect: 'error' })
    .catch((error) => { throw error instanceof TypeError ? new Gone(error.message) : error; });
  if (!answer.ok) {
    const problem = await answer.text().then(parse).catch(() => ({}));
    throw new Refused(answer.status, problem);
  }
  return answer;
}

// A recorder that is stopped takes requests and does not answer.
export const soon = () => ({ signal: AbortSignal.timeout(PATIENCE_MS) });

/**
 * The path and the query string of a question.
 * @template {keyof Questions & `GET ${string}`} Q
 * @param {Q} what
 * @param {Questions[Q]} parameters
 */
export const target = (what, parameters) => what.slice(4) + query(parameters);

/**
 * An answer that is not text.
 * @template {keyof Questions & `GET ${string}`} Q
 * @param {Q} what
 * @param {Questions[Q]} parameters
 * @param {RequestInit} options
 */
export const get = (what, parameters, options = {}) => send('GET', target(what, parameters), options);

// What a path of the recorder's own answers has: the bytes of a file.
export const open = (/** @type {string} */ path) => send('GET', path);

/**
 * @template {keyof Answers & `GET ${string}`} Q
 * @param {Q} what
 * @param {Questions[Q]} parameters
 * @param {RequestInit} options
 * @returns {Promise<Answers[Q]>}
 */
export async function json(what, parameters = {}, options = soon()) {
  const answer = await send('GET', target(what, parameters), options);
  return parse(await answer.text());
}

/**
 * @template {keyof Answers & keyof Bodies} Q
 * @param {Q} what
 * @param {Bodies[Q]} body
 * @returns {Promise<Answers[Q]>}
 */
export async function post(what, body) {
  const answer = await send('POST', what.slice(5), { body: JSON.stringify(body) });
  return parse(await answer.text());
}

/**
 * @template {keyof Questions & `DELETE ${string}`} Q
 * @param {Q} what
 * @param {Questions[Q]} parameters
 */
export const remove = (what, parameters) => send('DELETE', what.slice(7) + query(parameters));

/**
 * Calls `each` with the objects of an answer in lines as they come; returns what its end says.
 * @template {keyof Lines} Q
 * @param {Q} what
 * @param {Questions[Q]} parameters
 * @param {(line: Lines[Q]) => void} each
 * @param {{ body?: Q extends keyof Bodies ? Bodies[Q] : never, signal?: AbortSignal }} options
 * @returns {Promise<Record<string, string>>}
 */
export async function lines(what, parameters, each, { body, signal } = {}) {
  const [method, path] = what.split(' ');
  const answer = await send(method, path + query(parameters), { body: body && JSON.stringify(body), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', end = null;
  const take = (text) => {
    if (!text) return;
    const value = parse(text);
    if (value.end && Object.keys(value).length === 1) end = value.end;
    else each(value);
  };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const all = (rest + value).split('\n');
    rest = all.pop();
    all.forEach(take);
  }
  take(rest);
  return end || {};
}

// Characters that are not seen, or that turn the direction in which a line is read. JSON has them as escapes.
const DECEPTIVE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]/u;
const DECEPTIVE_ALL = new RegExp(DECEPTIVE.source, 'gu');

// What the recorder says, with texts of the network in which no character deceives.
export function parse(text) {
  if (!text.includes('\\u') && !DECEPTIVE.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_, value) => (typeof value === 'string' ? plain(value) : value));
}

// A text in which no character deceives.
export const plain = (/** @type {string} */ text) => text.replaceAll(DECEPTIVE_ALL, '\ufffd');

// The query string of these parameters; those without a value are left out, and a list is repeated.
function query(parameters) {
  const all = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== '') all.append(key, one);
    }
  }
  const text = all.toString();
  return text ? `?${text}` : '';
}
