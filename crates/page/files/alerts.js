// Alerts of Suricata or Zeek, dropped here: which of their sessions are there, in whole, in part, or not, and why.

import * as api from './api.js';
import { counted, exact, exactTime, microseconds, number, rfc3339 } from './format.js';
import { pack, unpack } from './pack.js';
import { v6 } from './search.js';
import { change, onChange, state } from './state.js';
import { button, drops, el } from './ui.js';

const BEFORE_US = 5e6, ALERTS_MAX = 5000, AT_ONCE = 200;
// Alerts that a link holds: an address stays short enough to be sent.
const LINKED_MAX = 200;
// The last time that the recorder's nanoseconds since 1970 can say.
const TIME_MAX_US = 2 ** 64 / 1000 - 1e9;

export function alerts(place, app) {
  const input = el('input', { type: 'file', id: 'alert-file', 'aria-label': 'eve.json or conn.log' });
  const zone = el('div', { class: 'drop', id: 'drop' }, 'Drop an eve.json of Suricata or a conn.log of Zeek here, or choose one: ', input);
  const note = el('p', { class: 'note', role: 'status', id: 'alert-note' });
  const body = el('tbody');
  const list = el('table', { id: 'outcomes' }, el('caption', {}, 'Alerts'), el('thead', {}, el('tr', {}, ...['Time', 'Alert', 'Session', 'Outcome', 'Why'].map((name) => el('th', { scope: 'col' }, name)))), body);
  place.append(zone, note, list);
  let shown = '', asked = 0;
  drops(zone, input, take);
  // The alerts are in the address: whoever opens it sees what the recorder has of them now.
  onChange((keys) => { if (keys.has('alerts') || keys.has('view')) open(); });

  async function take(file) {
    asked += 1;
    const { found, wrong, others } = read(await file.text());
    body.replaceChildren();
    shown = '';
    if (!found.length) {
      note.textContent = `There is no alert in ${file.name}: ${others ? `it has ${counted(others, 'other event')} of Suricata` : 'it is neither an eve.json of Suricata nor a conn.log of Zeek'}.`;
      change({ alerts: '' });
      return;
    }
    // Alerts with very long names do not fit into an address.
    shown = await pack(JSON.stringify(found.slice(0, LINKED_MAX).map(({ name, at, until, flow }) => [name, at, until, flow]))).catch(() => '');
    change({ alerts: shown });
    await look(found, [wrong ? `${wrong} lines were not understood` : '', others ? `${counted(others, 'other event')} left out` : '',
      !shown ? 'the address of this page does not hold them' : found.length > LINKED_MAX ? `the address of this page holds the first ${LINKED_MAX}` : '']);
  }

  async function open() {
    if (!app.visitor || state.view !== 'alerts' || state.alerts === shown) return;
    shown = state.alerts;
    asked += 1;
    body.replaceChildren();
    note.textContent = '';
    if (!shown) return;
    let found;
    try {
      found = linked(api.parse(await unpack(shown)));
    } catch {
      note.textContent = 'The alerts in this link cannot be read: it was changed or cut.';
      return;
    }
    // Whoever opens a link decides whether to look: what is read stands in the audit log under their name.
    note.replaceChildren(`${counted(found.length, 'alert')} in this link. `, button('Ask the recorder', () => look(found, []), { id: 'alerts-look' }));
    body.append(...found.map((alert) => el('tr', {}, el('td', {}, exactTime(alert.at)), el('td', {}, alert.name), el('td', {}, alert.flow), el('td', {}, 'not asked for yet'), el('td', {}))));
  }

  async function look(found, notes) {
    asked += 1;
    const mine = asked, some = found.slice(0, ALERTS_MAX), counts = { found: 0, partly: 0, missing: 0 };
    note.textContent = `${number(some.length)} alerts, asking the recorder …`;
    body.replaceChildren();
    try {
      for (let at = 0; at < some.length && mine === asked; at += AT_ONCE) await ask(some.slice(at, at + AT_ONCE), counts, mine);
    } catch (error) {
      if (mine === asked) note.textContent = error.message;
      return;
    }
    if (mine !== asked) return;
    note.textContent = [`${counts.found} found, ${counts.partly} found in part, ${counts.missing} missing`, ...notes, found.length > some.length ? `only the first ${exact(ALERTS_MAX)} were looked up` : ''].filter(Boolean).join('; ');
  }

  async function ask(some, counts, mine) {
    const newest = microseconds(app.end.as_of) || Infinity;
    const selections = some.map(({ flow, at, until }) => ({ flow, since: rfc3339(Math.max(0, Math.min(at, newest) - BEFORE_US)), until: rfc3339(Math.max(until, at) + BEFORE_US) }));
    const outcomes = new Map();
    await api.lines('POST /v1/packets', {}, (line) => { if (line.selection !== undefined && line.data === undefined) outcomes.set(line.selection, line); },
      { body: { selections, answer: 'lines', whole_sessions: true } }).catch((error) => {
      // None of them finds anything.
      if (error.status !== 404) throw error;
      some.forEach((_, i) => outcomes.set(i, { packets: 0, missing: { detail: error.message } }));
    });
    if (mine !== asked) return;
    some.forEach((alert, i) => {
      const outcome = outcomes.get(i) || { packets: 0, missing: { detail: 'the recorder did not say' } };
      const kind = outcome.packets === 0 ? 'missing' : outcome.missing ? 'partly' : 'found';
      counts[kind] += 1;
      const words = { found: `found, ${number(outcome.packets)} packets`, partly: `found in part, ${number(outcome.packets)} packets`, missing: 'missing' }[kind];
      const open = kind === 'missing' ? alert.flow : button(alert.flow, () => change({ view: '', only: '', not: '', q: alert.flow.split(' ').slice(0, 2).join(' '), since: selections[i].since, until: selections[i].until }));
      body.append(el('tr', { class: kind }, el('td', {}, exactTime(alert.at)), el('td', {}, alert.name), el('td', {}, open), el('td', {}, words), el('td', {}, outcome.missing?.detail || '')));
    });
  }

  return { show: open };
}

// Alerts that a link holds. A link comes from anybody: each field is checked.
function linked(all) {
  if (!Array.isArray(all) || all.length > LINKED_MAX) throw new Error('not a list of alerts');
  return all.map(([name, at, until, flow]) => {
    if (typeof name !== 'string' || typeof flow !== 'string' || !isTime(at) || !isTime(until)) throw new Error('not an alert');
    return { name, at, until, flow };
  });
}

const bracketed = (ip) => (ip.includes(':') ? `[${ip}]` : ip);
const isTime = (us) => Number.isFinite(us) && us >= 0 && us <= TIME_MAX_US;
const isPort = (port) => /^\d{1,5}$/.test(String(port)) && Number(port) < 65536;

// The family of an address; 0 for other texts.
function family(ip) {
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(ip)) return ip.split('.').every((part) => Number(part) < 256) ? 4 : 0;
  return v6(ip) ? 6 : 0;
}

function alert(name, time, a, aPort, b, bPort, proto, duration = 0) {
  if (!isTime(time) || !isTime(time + duration * 1e6) || !family(String(a)) || family(String(a)) !== family(String(b))) return null;
  const known = /^(tcp|udp|sctp)$/i.test(proto || '') && isPort(aPort) && isPort(bPort);
  const flow = known ? `${bracketed(a)}:${aPort} ${bracketed(b)}:${bPort} ${proto.toLowerCase()}` : `${bracketed(a)} ${bracketed(b)}`;
  return { name, at: time, until: time + duration * 1e6, flow };
}

// The alerts of a file, how many lines were not understood, and how many events are no alerts.
export function read(text) {
  const found = [];
  let wrong = 0, others = 0, fields = null;
  for (const line of text.split('\n')) {
    if (!line.trim()) continue;
    if (line.startsWith('#')) {
      if (line.startsWith('#fields')) fields = line.split('\t').slice(1);
      continue;
    }
    let made = null;
    if (fields && !line.startsWith('{')) {
      const values = line.split('\t'), of = (name) => values[fields.indexOf(name)];
      made = alert('conn', Number(of('ts')) * 1e6, of('id.orig_h'), of('id.orig_p'), of('id.resp_h'), of('id.resp_p'), of('proto'), Number(of('duration')) || 0);
    } else {
      try {
        const event = api.parse(line);
        if (event.src_ip && event.event_type && event.event_type !== 'alert') { others += 1; continue; }
        if (event['id.orig_h']) made = alert('conn', typeof event.ts === 'number' ? event.ts * 1e6 : Date.parse(event.ts) * 1000, event['id.orig_h'], event['id.orig_p'], event['id.resp_h'], event['id.resp_p'], event.proto, event.duration || 0);
        else if (event.src_ip) made = alert(event.alert?.signature || event.event_type || 'event', Date.parse(String(event.timestamp).replace(/([+-]\d\d)(\d\d)$/, '$1:$2')) * 1000, event.src_ip, event.src_port, event.dest_ip, event.dest_port, event.proto);
      } catch { /* counted below */ }
    }
    if (made) found.push({ ...made, name: api.plain(String(made.name)) }); else wrong += 1;
  }
  return { found, wrong, others };
}
