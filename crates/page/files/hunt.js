// Searches of what sessions carried: rules in, matches as they come.

import * as api from './api.js';
import { exactTime, microseconds, number } from './format.js';
import { change, onChange, state } from './state.js';
import { button, drops, el } from './ui.js';

const KINDS = [['text', 'Text'], ['regex', 'Regular expression'], ['bytes', 'Bytes in hexadecimal'], ['ioc', 'Indicator: address, name, URL, hash'], ['attack', 'Named attack, or all'], ['rule', 'Rule of your own (TOML)']];
const LIMIT = 1000, RULE_BYTES_MAX = 60000, RULES_MAX = 64;

export function hunt(place, app) {
  const kind = el('select', { id: 'rule-kind', 'aria-label': 'Kind of rule' }, ...KINDS.map(([value, text]) => el('option', { value }, text)));
  const rules = el('textarea', { id: 'rules', rows: 3, 'aria-label': 'Rules, one on a line', placeholder: 'One rule on a line', spellcheck: 'false' });
  const where = el('select', { 'aria-label': 'Search in' }, ...[['stream', 'in streams'], ['payload', 'in packets'], ['file', 'in files']].map(([value, text]) => el('option', { value }, text)));
  const start = el('button', { type: 'submit', id: 'hunt-start' }, 'Search'), stop = button('Stop', () => running?.abort(), { id: 'hunt-stop', disabled: true });
  const note = el('p', { class: 'note', role: 'status', id: 'hunt-note' }), list = el('ol', { id: 'matches', class: 'lines' });
  const file = el('input', { type: 'file', id: 'rule-file', accept: '.toml', 'aria-label': 'File with a rule' });
  const zone = el('p', { class: 'drop', id: 'rule-drop' }, 'A rule in a file (TOML), as retrocap hunt --check reads it: drop it here, or choose it: ', file);
  const form = el('form', { class: 'hunt' }, kind, where, rules, zone, el('div', { class: 'controls' }, start, stop), note);
  place.append(form, list);
  let running = null;

  // What is looked for is in the address; whoever opens it decides whether to look.
  function show() {
    kind.value = state.kind || 'text';
    where.value = state.in || 'stream';
    rules.value = state.rules;
  }
  show();
  onChange((keys) => { if (['kind', 'in', 'rules'].some((key) => keys.has(key))) show(); });

  drops(zone, file, async (given) => {
    if (given.size > RULE_BYTES_MAX) { note.textContent = `${given.name} is too large for a rule.`; return; }
    kind.value = 'rule';
    rules.value = await given.text();
    form.requestSubmit();
  });

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const all = rules.value.split('\n').map((line) => line.trim()).filter(Boolean);
    if (!all.length) { note.textContent = 'There is no rule. Write one, for example a password or a host name.'; return; }
    if (kind.value !== 'rule' && all.length > RULES_MAX) { note.textContent = `${number(all.length)} rules: the page takes ${RULES_MAX} at a time. retrocap hunt --ioc FILE takes a list of any length.`; return; }
    change({ kind: kind.value === 'text' ? '' : kind.value, in: where.value === 'stream' ? '' : where.value, rules: rules.value }, false);
    running?.abort();
    const mine = new AbortController();
    running = mine;
    stop.disabled = false;
    list.replaceChildren();
    note.textContent = 'Searching …';
    const filter = app.understood.kind === 'expression' ? app.understood.expression : undefined;
    try {
      const selection = { since: state.since, until: state.until, filter, limit: LIMIT };
      // A rule is tried on its own test conversations first.
      const end = kind.value === 'rule'
        ? await api.lines('POST /v1/hunt/rule', selection, add, { body: { rule: rules.value }, signal: mine.signal })
        : await api.lines('GET /v1/hunt', { ...selection, [kind.value]: all, in: where.value }, add, { signal: mine.signal });
      note.textContent = [`${number(list.children.length)} ${list.children.length === 1 ? 'match' : 'matches'}`, end['retrocap-note'], end['retrocap-missing']].filter(Boolean).join('; ');
    } catch (error) {
      note.textContent = error.name === 'AbortError' ? `Stopped, with ${list.children.length} matches.` : error.message;
    } finally {
      if (running === mine) { running = null; stop.disabled = true; }
    }
  });

  function add(/** @type {import('../types/api.d.ts').Match} */ match) {
    const text = match.context_hex.match(/../g)?.map((byte) => parseInt(byte, 16)).map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '·')).join('') || '';
    const { flow } = match, end = (one) => (one.ip ? `${one.ip}:${one.port}` : one.mac);
    list.append(el('li', {}, button(`${exactTime(microseconds(match.time))}  ${match.rule}${match.stage ? ` (${match.stage})` : ''}  ${end(flow.originator)} → ${end(flow.responder)} ${flow.proto}`, () => open(match),
      { title: match.detail || '' }), el('code', {}, match.detail || text), match.gap_before ? el('em', {}, ' bytes are missing before it') : null));
    note.textContent = `Searching … ${list.children.length} matches so far`;
  }

  // Shows the session in which a rule matched.
  function open({ flow, time }) {
    const { store } = app, at = microseconds(time);
    for (let row = 0; row < store.count; row += 1) {
      if (store.first[row] > at + 1000 || store.last[row] < at - 1000) continue;
      const ends = [store.addresses.text(store.originator[row]), store.addresses.text(store.responder[row])];
      const [a, b] = [flow.originator, flow.responder];
      const same = (x, y) => ends[0] === (x.ip || x.mac) && ends[1] === (y.ip || y.mac) && store.originatorPort[row] === x.port && store.responderPort[row] === y.port;
      if (same(a, b) || same(b, a)) return change({ session: store.id(row), packet: '' });
    }
    note.textContent = 'This session is no longer in the list.';
  }
}
