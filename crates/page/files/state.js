// What the page shows, all of it in its address: a link is a finding that a colleague with rights can open.

const KEYS = ['view', 'since', 'until', 'q', 'by', 'sort', 'session', 'only', 'not', 'zone', 'tab', 'packet', 'kind', 'in', 'rules', 'alerts'];
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;
const listeners = new Set();
// What of the address was not understood.
export const wrong = { text: '' };
export const state = read();

function read() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const all = Object.fromEntries(KEYS.map((key) => [key, hash.get(key) || '']));
  wrong.text = '';
  for (const key of ['since', 'until']) {
    const at = TIME.test(all[key]) ? Date.parse(all[key]) : NaN;
    if (all[key] && (Number.isNaN(at) || at < 0)) {
      wrong.text = `The ${key} of this link is no time: ${all[key].slice(0, 40)}. It has the form 2026-11-27T10:00:00Z.`;
      all[key] = '';
    } else if (all[key] && !all[key].endsWith('Z')) all[key] = new Date(at).toISOString();
  }
  return all;
}

// Changes the state. Steps that somebody may want to go back from are steps of the history.
export function change(part, isStep = true) {
  const changed = Object.keys(part).filter((key) => state[key] !== part[key]);
  if (!changed.length) return;
  Object.assign(state, part);
  const hash = address(state);
  if (isStep) history.pushState(null, '', hash);
  else history.replaceState(null, '', hash);
  listeners.forEach((listener) => listener(new Set(changed)));
}

export function address(of) {
  const hash = new URLSearchParams();
  for (const key of KEYS) if (of[key]) hash.set(key, of[key]);
  return `#${hash}`;
}

export function onChange(listener) {
  listeners.add(listener);
}

function moved() {
  // A new link, opened where the page already is.
  if (new URLSearchParams(location.hash.slice(1)).has('link')) { location.reload(); return; }
  const now = read();
  const changed = KEYS.filter((key) => state[key] !== now[key]);
  Object.assign(state, now);
  if (changed.length) listeners.forEach((listener) => listener(new Set(changed)));
}
addEventListener('popstate', moved);
addEventListener('hashchange', moved);

// Terms that narrow the sessions, such as host 10.0.0.1, as a list in the address.
export const terms = (key) => (state[key] ? state[key].split(',') : []);

export function addTerm(key, term) {
  const all = terms(key);
  if (!all.includes(term)) change({ [key]: [...all, term].join(',') });
}

export function removeTerm(key, term) {
  change({ [key]: terms(key).filter((one) => one !== term).join(',') });
}
